"""Tokens in cookies: page scripts can't read them, and other sites' pages can't use them to change something."""

from typing import Any
from uuid import uuid4

import pytest
from flask import Flask

from app.auth.cookies import csrf_token
from app.auth.refresh_tokens import session_of
from tests.app.api.test_problems import problem_of
from tests.factories.browser import PASSWORD, Browser
from tests.factories.people import People, Person

OVER_TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])


def test_the_tokens_are_in_cookies_and_nowhere_else(app: Flask, person: Person) -> None:
    browser = Browser(app)
    response = browser.login(person)
    assert set(response.json) == {"csrfToken", "expiresIn", "refreshExpiresIn", "memberships"}
    kept = browser.cookies
    assert set(kept) == {"__Host-access", "__Secure-refresh", "__Host-csrf", "__Secure-device"}
    for name, path, lifetime in (
        ("__Secure-device", "/api", str(400 * 86_400)),
        ("__Host-access", "/", "900"),
        ("__Secure-refresh", "/api", str(30 * 86_400)),
        ("__Host-csrf", "/", str(30 * 86_400)),
    ):
        about = kept[name]
        assert (about["path"], about["max-age"], about["samesite"]) == (path, lifetime, "Strict")
        assert about["secure"] is True
        assert about["domain"] == "", "a cookie for all subdomains would be every tenant's"
        assert bool(about["httponly"]) is (name != "__Host-csrf")
    assert kept["__Host-csrf"].value == response.json["csrfToken"]
    assert kept["__Host-access"].value not in response.text
    assert kept["__Secure-refresh"].value not in response.text
    assert kept["__Secure-device"].value not in response.text


@OVER_TENANTS
def test_a_cookie_reads_by_itself_and_pays_with_the_csrf_token(browser: Browser, slug: str) -> None:
    assert browser.send("GET", f"/api/{slug}/wallet").json["tenantId"] == slug
    assert browser.pay(slug, csrf=browser.csrf).status_code == 201


@OVER_TENANTS
def test_without_the_sessions_own_csrf_token_nothing_is_paid(
    app: Flask, browser: Browser, person: Person, slug: str
) -> None:
    other = Browser(app)
    other.login(person)
    assert other.csrf != browser.csrf
    for csrf in (None, "", "x", browser.csrf[:-1], browser.csrf.upper() + "x", other.csrf, "é"):
        problem_of(browser.pay(slug, csrf=csrf), 403, "csrf_required")
    balance = browser.send("GET", f"/api/{slug}/wallet").json["balance"]
    assert balance == "10.00"


FOREIGN: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://attacker.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://["},
    {"Origin": "https://localhost.attacker.example"},
    {"Origin": "https://localhost:8443"},
    {"Origin": "https://localhost", "Sec-Fetch-Site": "cross-site"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_what_a_page_of_another_origin_sends_changes_nothing(
    app: Flask, browser: Browser, person: Person, headers: dict[str, str]
) -> None:
    problem_of(browser.pay("eur", csrf=browser.csrf, headers=headers), 403, "csrf_required")
    problem_of(
        browser.send("POST", "/api/auth/refresh", csrf=browser.csrf, json={}, headers=headers), 403, "csrf_required"
    )
    problem_of(Browser(app).login(person, headers=headers), 403, "csrf_required")


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://localhost"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]
)
def test_what_our_own_page_sends_is_taken(browser: Browser, headers: dict[str, str]) -> None:
    assert browser.pay("km", csrf=browser.csrf, headers=headers).status_code == 201


def test_a_header_is_heard_before_a_cookie(browser: Browser, people: People) -> None:
    other = people.make(eur="member")
    sent = {"Authorization": f"Bearer {other.token}"}
    assert browser.send("GET", "/api/me", headers=sent).json["id"] == str(other.user_id)
    problem_of(browser.pay("eur", headers=sent), 409, "insufficient_funds")
    for wrong in ("Basic eDp5", "Bearer", "", "Bearer x"):
        response = browser.send("GET", "/api/me", headers={"Authorization": wrong})
        assert response.status_code == 401, "a header that is wrong is not passed over"


def test_what_is_no_token_in_a_cookie_is_refused(app: Flask, person: Person) -> None:
    for value, code in (("x", "token_invalid"), ("", "token_missing"), (f"wk_{uuid4().hex}_x", "token_invalid")):
        response = app.test_client(use_cookies=False).get("/api/me", headers={"Cookie": f"__Host-access={value}"})
        problem_of(response, 401, code)
    for name, code in (
        ("access", "token_missing"),
        ("__Secure-refresh", "token_missing"),
        ("__Host-csrf", "token_expired"),
    ):
        response = app.test_client(use_cookies=False).get("/api/me", headers={"Cookie": f"{name}={person.token}"})
        problem_of(response, 401, code)


def test_a_browser_whose_access_cookie_has_expired_is_told_to_refresh(browser: Browser) -> None:
    """The browser drops that cookie; the cookie of the CSRF token says that the session goes on."""
    del browser.cookies["__Host-access"]
    problem_of(browser.send("GET", "/api/me"), 401, "token_expired")
    assert browser.send("POST", "/api/auth/refresh", csrf=browser.csrf).status_code == 200
    assert browser.send("GET", "/api/me").status_code == 200


def test_a_session_goes_on_by_cookie_with_the_csrf_token(browser: Browser) -> None:
    problem_of(browser.send("POST", "/api/auth/refresh", json={}), 403, "csrf_required")
    before = dict(browser.cookies)
    del browser.cookies["__Host-access"]  # Its time is over before the session's is.
    response = browser.send("POST", "/api/auth/refresh", csrf=browser.csrf, json={})
    assert set(response.json) == {"csrfToken", "expiresIn", "refreshExpiresIn"}
    assert response.json["csrfToken"] == browser.csrf, "it is the session's, and that is the same"
    assert browser.cookies["__Secure-refresh"].value != before["__Secure-refresh"].value
    assert browser.pay("eur", csrf=browser.csrf).status_code == 201


def test_a_refresh_cookie_that_is_none_is_refused(browser: Browser) -> None:
    browser.cookies["__Secure-refresh"].set("__Secure-refresh", "x", "x")
    problem_of(browser.send("POST", "/api/auth/refresh", csrf=browser.csrf, json={}), 401, "token_invalid")


def test_a_refresh_token_in_the_body_is_answered_in_the_body(app: Flask, browser: Browser) -> None:
    """A client with the token in its body is no browser and gets no cookie."""
    token = browser.cookies["__Secure-refresh"].value
    response = Browser(app).send("POST", "/api/auth/refresh", json={"refreshToken": token})
    assert "accessToken" in response.json
    assert response.headers.getlist("Set-Cookie") == []


@OVER_TENANTS
def test_a_log_in_below_a_tenants_path_gives_the_same_cookies(app: Flask, person: Person, slug: str) -> None:
    for below in ("/api/auth", f"/api/{slug}/auth"):
        browser = Browser(app)
        assert browser.login(person, f"/api/{slug}/auth/login").status_code == 200
        assert browser.send("GET", "/api/wallet").json["tenantId"] == slug
        assert browser.send("POST", f"{below}/refresh", csrf=browser.csrf, json={}).status_code == 200
        assert browser.send("GET", "/api/wallet").json["tenantId"] == slug
        refresh_cookie = browser.cookies["__Secure-refresh"].value
        assert browser.send("POST", f"{below}/logout", csrf=browser.csrf).status_code == 204
        assert set(browser.cookies) == {"__Secure-device"}
        body = {"refreshToken": refresh_cookie}
        problem_of(browser.send("POST", "/api/auth/refresh", json=body), 401, "session_over")


def test_a_cookie_of_the_last_release_for_a_narrower_path_is_replaced(app: Flask, person: Person) -> None:
    """Of two cookies with one name a browser sends that of the longer path first: the used token, which ends all."""
    client = app.test_client()
    body = {"email": person.email, "password": PASSWORD}
    token = client.post("/api/auth/login", json=body).json["refreshToken"]
    client.set_cookie("__Secure-refresh", token, path="/api/auth")
    csrf = csrf_of(app, token)
    for path in ("/api/auth/refresh", "/api/eur/auth/refresh", "/api/auth/refresh"):
        assert client.post(path, headers={"X-CSRF-Token": csrf}).status_code == 200
        assert client.get_cookie("__Secure-refresh", path="/api/auth") is None
    assert client.post("/api/eur/auth/logout", headers={"X-CSRF-Token": csrf}).status_code == 204
    assert client.get_cookie("__Secure-refresh", path="/api") is None


def csrf_of(app: Flask, refresh_token: str) -> str:
    with app.app_context():
        return csrf_token(session_of(refresh_token))


def test_a_refused_log_in_sets_no_cookie(app: Flask, person: Person) -> None:
    body = {"email": person.email, "password": "wrong", "cookie": True}
    response = app.test_client().post("/api/auth/login", json=body)
    problem_of(response, 401, "bad_credentials")
    assert response.headers.getlist("Set-Cookie") == []


@pytest.mark.parametrize("cookie", ["true", 1, None, []])
def test_cookie_is_true_or_false(app: Flask, person: Person, cookie: Any) -> None:
    body = {"email": person.email, "password": PASSWORD, "cookie": cookie}
    assert app.test_client().post("/api/auth/login", json=body).status_code == 422
