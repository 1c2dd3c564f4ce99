"""Pages of the configured origins call the API with tokens, never with cookies. Without the setting nothing changes."""

from collections.abc import Iterator

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.api.cors import ANSWER_HEADERS, REQUEST_HEADERS
from app.auth import passwords
from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of
from tests.factories.api import Api
from tests.factories.application import running
from tests.factories.browser import PASSWORD, Browser
from tests.factories.people import People, Person

ORIGIN = "https://app.example"
ORIGINS = (ORIGIN, "http://localhost:3000")
STRANGERS = (
    *("https://attacker.example", "https://app.example.attacker.example", "https://app-example", "http://app.example"),
    *("https://app.example:8443", "https://sub.app.example", "null", "https://APP.example"),
)


@pytest.fixture(scope="module")
def open_app(database: Database) -> Iterator[Flask]:
    """Its limits are used up by one request: a preflight is answered before them."""
    with running(database, cors_origins=ORIGINS, caller_rate_limit="4/day") as app:
        yield app


@pytest.fixture
def open_api(open_app: Flask) -> Api:
    return Api(open_app)


@pytest.fixture
def member(open_app: Flask) -> Person:
    return People(open_app).make(eur="member")


def preflight(
    api: Api, origin: str, method: str = "GET", path: str = "/api/eur/wallet", headers: str = ""
) -> TestResponse:
    sent = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers:
        sent["Access-Control-Request-Headers"] = headers
    return api.send("OPTIONS", path, headers=sent)


def allowed(answer: TestResponse) -> list[str]:
    return sorted(name for name, _ in answer.headers if name.startswith("Access-Control-"))


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_a_preflight_is_answered_before_the_gate_and_without_a_token(open_api: Api, origin: str, method: str) -> None:
    wanted = "authorization,content-type,idempotency-key,if-match,x-tenant"
    answer = preflight(open_api, origin, method, "/api/eur/wallet/payments", wanted)
    assert (answer.status_code, answer.data) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert method in answer.headers["Access-Control-Allow-Methods"].split(", ")
    assert answer.headers["Access-Control-Allow-Headers"] == ", ".join(sorted(wanted.split(",")))
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Origin" in answer.vary


def test_a_csrf_token_and_an_unknown_header_are_not_for_other_origins(open_api: Api) -> None:
    answer = preflight(open_api, ORIGIN, headers="x-csrf-token,x-unknown,x-tenant")
    assert answer.headers["Access-Control-Allow-Headers"] == "x-tenant"
    assert "X-CSRF-Token" not in REQUEST_HEADERS


@pytest.mark.parametrize("origin", STRANGERS)
def test_no_other_origin_is_allowed(open_api: Api, member: Person, origin: str) -> None:
    assert allowed(preflight(open_api, origin)) == []
    answer = open_api.get("/api/me", member, headers={"Origin": origin})
    assert (answer.status_code, allowed(answer)) == (200, [])
    assert "Origin" in answer.vary, "a cache must not give this answer to an allowed origin"


def test_an_allowed_page_reads_answers_and_refusals_with_the_headers_of_the_contract(
    open_api: Api, member: Person
) -> None:
    sent = {"Origin": ORIGIN}
    answers = [open_api.get("/api/me", member, headers=sent) for _ in range(5)]
    refused = open_api.get("/api/me", headers=sent)
    unknown = open_api.get("/api/nothing", headers=sent)
    assert [answer.status_code for answer in (*answers, refused, unknown)] == [200] * 4 + [429, 401, 404]
    for answer in (*answers, refused, unknown):
        assert allowed(answer) == ["Access-Control-Allow-Origin", "Access-Control-Expose-Headers"]
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert answer.headers["Access-Control-Expose-Headers"] == ", ".join(sorted(ANSWER_HEADERS))
    assert preflight(open_api, ORIGIN).status_code == 204


def test_all_headers_that_the_description_names_are_exposed(open_api: Api) -> None:
    described = open_api.get("/openapi.json", headers={"Origin": ORIGIN}).json
    answers = [
        answer
        for operations in described["paths"].values()
        for operation in operations.values()
        if isinstance(operation, dict)
        for answer in operation.get("responses", {}).values()
    ]
    answers += described["components"]["responses"].values()
    named = {name for answer in answers for name in answer.get("headers", {})}
    named -= {"Cache-Control", "Vary"}  # Pages see the first without being asked, and caches alone need the second.
    assert {"ETag", "Location", "WWW-Authenticate", "Retry-After"} <= named <= set(ANSWER_HEADERS)


def test_the_pages_and_the_probes_are_not_for_other_origins(open_api: Api) -> None:
    for path in ("/docs/", "/livez", "/readyz"):
        assert allowed(open_api.get(path, headers={"Origin": ORIGIN})) == []


def test_an_allowed_page_logs_in_without_cookies_only(open_app: Flask, open_api: Api) -> None:
    person = People(open_app).make(password_hash=passwords.hash_password(PASSWORD), eur="member")
    from_page = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-site"}
    problem_of(Browser(open_app).login(person, headers=from_page), 403, "csrf_required")
    body = {"email": person.email, "password": PASSWORD}
    tokens = open_api.send("POST", "/api/auth/login", json=body, headers=from_page).json
    body = {"refreshToken": tokens["refreshToken"]}
    assert open_api.send("POST", "/api/auth/refresh", json=body, headers=from_page).status_code == 200
    ended = open_api.send("POST", "/api/auth/logout", json=body, headers=from_page)
    assert (ended.status_code, ended.headers.getlist("Set-Cookie")) == (204, [])


def test_without_the_setting_a_preflight_meets_the_gate(api: Api) -> None:
    answer = preflight(api, ORIGIN)
    assert (answer.status_code, allowed(answer), answer.headers.get("Vary")) == (401, [], None)
