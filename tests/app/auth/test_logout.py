"""A log-out ends the session with whatever the client still has, clears the cookies, and can't be forged."""

from typing import Any

import pytest
from flask import Flask

from app.auth.tokens import TokenMint
from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of
from tests.app.auth.test_cookies import FOREIGN
from tests.app.auth.test_sessions import OVER_TENANTS, bearer, is_out, login, me, reasons_of, refresh, use_ago
from tests.factories.api import ID_OF_NOTHING, Api
from tests.factories.browser import Browser
from tests.factories.people import Person

LOGOUT = "/api/auth/logout"
OWN_PAGE = {"Origin": "https://localhost", "Sec-Fetch-Site": "same-origin"}
COOKIES = {"__Host-access", "__Secure-refresh", "__Host-csrf"}


def log_out(api: Api, **more: Any) -> None:
    response = api.send("POST", LOGOUT, **more)
    assert (response.status_code, response.data) == (204, b""), response.text


def expired(app: Flask, tokens: Any) -> Any:
    """The tokens, with an access token of the same session that has expired."""
    mint: TokenMint = app.extensions["token_mint"]
    token = mint.check(tokens["accessToken"])
    assert token.session_id
    return {**tokens, "accessToken": mint.issue(token.user_id, None, token.session_id, lifetime_seconds=-1)}


@OVER_TENANTS
def test_a_log_out_ends_this_session_at_once_and_no_other(
    api: Api, person: Person, database: Database, slug: str
) -> None:
    one, other = login(api, person, slug), login(api, person, slug)
    newer = refresh(api, one["refreshToken"]).json
    log_out(api, headers=bearer(newer))
    is_out(api, one)
    is_out(api, newer)
    log_out(api, headers=bearer(newer))
    assert me(api, other).status_code == 200
    assert reasons_of(database, person) == {"logout", None}


def test_a_refresh_token_in_the_body_is_enough_also_a_used_one(api: Api, person: Person, database: Database) -> None:
    for used in (False, True):
        tokens = login(api, person)
        if used:
            refresh(api, tokens["refreshToken"])
            use_ago(database, tokens["refreshToken"], "1 hour")
        for _ in range(2):
            log_out(api, json={"refreshToken": tokens["refreshToken"]})
        is_out(api, tokens)
    assert reasons_of(database, person) == {"logout", None}


def test_an_expired_access_token_ends_its_session_and_a_forged_one_none(api: Api, app: Flask, person: Person) -> None:
    tokens = login(api, person)
    over = expired(app, tokens)
    problem_of(me(api, over), 401, "token_expired")
    log_out(api, headers={"Authorization": f"Bearer {over['accessToken'][:-4]}AAAA"})
    assert me(api, tokens).status_code == 200
    log_out(api, headers=bearer(over))
    is_out(api, tokens)


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"json": {}},
        {"json": {"refreshToken": "x"}},
        {"json": {"refreshToken": f"{ID_OF_NOTHING.hex}.x.x"}},
        *({"headers": {"Authorization": text}} for text in ("", "Bearer", "Bearer x", "Basic eDp5", "Bearer wk_x_y")),
    ],
    ids=str,
)
def test_what_names_no_session_is_no_error(app: Flask, sent: dict[str, Any]) -> None:
    response = Browser(app).send("POST", LOGOUT, **sent)
    assert response.status_code == 204
    cleared = response.headers.getlist("Set-Cookie")
    assert {line.partition("=")[0] for line in cleared} == COOKIES
    assert all("Max-Age=0" in line for line in cleared)


def test_a_session_that_is_known_by_its_id_only_is_not_ended(api: Api, person: Person) -> None:
    tokens = login(api, person)
    session = tokens["refreshToken"].partition(".")[0]
    log_out(api, json={"refreshToken": f"{session}.{'x' * 43}.{'x' * 22}"})
    assert refresh(api, tokens["refreshToken"]).status_code == 200


def test_a_browser_logs_out_after_its_access_token_has_expired(browser: Browser, api: Api) -> None:
    """Its access cookie is gone. The page still sends the expired token in the header, or has lost the CSRF token."""
    token = browser.cookies["__Secure-refresh"].value
    del browser.cookies["__Host-access"]
    answer = browser.send("POST", LOGOUT, headers={**OWN_PAGE, "Authorization": "Bearer x.y.z"})
    assert answer.status_code == 204
    assert set(browser.cookies) == {"__Secure-device"}, "the device is still known"
    problem_of(refresh(api, token), 401, "session_over")


def test_a_token_in_header_or_body_clears_the_cookies_also_without_a_word_of_the_origin(
    app: Flask, browser: Browser, person: Person
) -> None:
    kept = dict(browser.cookies)
    tokens = login(Api(app), person)
    for sent in ({"headers": bearer(tokens)}, {"json": {"refreshToken": tokens["refreshToken"]}}):
        browser.cookies = dict(kept)
        assert browser.send("POST", LOGOUT, **sent).status_code == 204
        assert set(browser.cookies) == {"__Secure-device"}
    browser.cookies = kept
    problem_of(browser.send("GET", "/api/me"), 401, "session_over")


def test_a_log_out_by_cookie_is_from_our_own_page_or_has_the_csrf_token(
    app: Flask, browser: Browser, person: Person
) -> None:
    other = Browser(app)
    other.login(person)
    kept = dict(browser.cookies)
    for csrf in (None, "", other.csrf):
        problem_of(browser.send("POST", LOGOUT, csrf=csrf), 403, "csrf_required")
    assert browser.cookies == kept
    assert browser.send("POST", LOGOUT, csrf=browser.csrf).status_code == 204
    assert set(browser.cookies) == {"__Secure-device"}
    browser.cookies = kept
    problem_of(browser.send("GET", "/api/me"), 401, "session_over")
    assert other.send("POST", LOGOUT, headers=OWN_PAGE).status_code == 204, "its page lost the CSRF token"


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_origin_ends_no_session_of_the_cookies_and_clears_none(
    app: Flask, browser: Browser, person: Person, headers: dict[str, str]
) -> None:
    for sender in (browser, Browser(app)):  # A form of another site is sent without the cookies.
        answer = sender.send("POST", LOGOUT, csrf=browser.csrf, headers=headers)
        problem_of(answer, 403, "csrf_required")
        assert answer.headers.getlist("Set-Cookie") == []
    attackers = login(Api(app), person)
    answer = browser.send("POST", LOGOUT, headers=headers, json={"refreshToken": attackers["refreshToken"]})
    assert (answer.status_code, answer.headers.getlist("Set-Cookie")) == (204, [])
    is_out(Api(app), attackers)
    assert browser.send("GET", "/api/me").status_code == 200
