"""Each request is logged as one line of JSON without secrets."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from io import StringIO
from typing import Any
from uuid import RFC_4122, UUID

import pytest
import structlog
from flask import Flask

from app.auth.passwords import hash_password
from app.users import service as users
from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import running
from tests.factories.api import Api
from tests.factories.people import People

OVER_TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])
LINE = {"event", "level", "timestamp", "request_id", "method", "route", "tenant", "user", "status", "duration_ms"}


class Log:
    """The output of an application."""

    def __init__(self, app: Flask, printed: StringIO) -> None:
        self.app, self.api, self.people, self._printed = app, Api(app), People(app), printed

    def text(self) -> str:
        text = self._printed.getvalue()
        self._printed.seek(0)
        self._printed.truncate()
        return text

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]

    def line(self) -> dict[str, Any]:
        """The only line."""
        (line,) = self.lines()
        return line


@contextmanager
def logged(database: Database, **changed: Any) -> Iterator[Log]:
    """An application with a readable log. The process's logging is restored afterwards."""
    before, printed = structlog.get_config(), StringIO()
    with ExitStack() as stack:
        stack.callback(structlog.configure, **before)
        with redirect_stdout(printed):
            app = stack.enter_context(running(database, **changed))
        yield Log(app, printed)


@pytest.fixture
def log(database: Database) -> Iterator[Log]:
    with logged(database) as log:
        yield log


@OVER_TENANTS
def test_a_request_is_one_line_that_says_who_what_where_and_how_long(log: Log, slug: str) -> None:
    person = log.people.make(eur="admin", km="admin")
    log.text()
    log.api.get(f"/api/{slug}/admin/wallets/{person.user_id}?", person)
    line = log.line()
    assert set(line) == LINE
    assert {name: line[name] for name in ("event", "level", "method", "route", "tenant", "user", "status")} == {
        "event": "request",
        "level": "info",
        "method": "GET",
        "route": "/api/admin/wallets/<uuid:wallet_id>",
        "tenant": slug,
        "user": str(person.user_id),
        "status": 404,
    }
    assert 0 < line["duration_ms"] < 10_000
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    ("method", "path", "status", "route"),
    [
        ("GET", "/livez", 200, "/livez"),
        ("GET", "/api/wallet", 401, "/api/wallet"),
        ("GET", "/nowhere", 404, None),
        ("DELETE", "/api/wallet", 405, None),
        ("POST", "/api/auth/login", 400, "/api/auth/login"),
    ],
)
def test_a_request_that_comes_to_nothing_is_a_line_too(
    log: Log, method: str, path: str, status: int, route: str | None
) -> None:
    log.api.send(method, path)
    line = log.line()
    assert (line["method"], line["route"], line["status"]) == (method, route, status)
    assert (line["tenant"], line["user"]) == (None, None)


def test_a_refused_member_and_a_tenant_that_is_behind_are_logged_with_the_tenant(fresh_database: Database) -> None:
    """The cause of a 403 or a 503 can be searched by tenant."""
    with logged(fresh_database) as log:
        person = log.people.make(eur="member", km="admin")
        fresh_database.as_superuser().execute("UPDATE shared.tenants SET revision = '0000' WHERE slug = 'km'")
        log.api.get("/api/admin/wallets", person, "eur")
        log.api.get("/api/admin/wallets", person, "km")
        lines = log.lines()
    assert [(line["status"], line["tenant"]) for line in lines] == [(403, "eur"), (503, "km")]


def test_one_request_says_nothing_of_the_one_before(log: Log) -> None:
    person = log.people.make(eur="member")
    log.api.get("/api/wallet", person, "eur")
    log.api.get("/livez")
    *_, last = log.lines()
    assert (last["tenant"], last["user"]) == (None, None)


def test_no_secret_is_ever_logged(log: Log, database: Database) -> None:
    """Neither of a log-in, successful or not, nor of tokens, nor of a body or a query."""
    person = log.people.make(password_hash=hash_password("the right password"), eur="admin")
    wrong_token = "eyJhbGciOiJub25lIn0.the-wrong-token.x"
    for password in ("the right password", "the wrong password"):
        log.api.post("/api/auth/login", json={"email": person.email, "password": password})
    log.api.get("/api/wallet", person, "eur", headers={"Cookie": "session=the-cookie"})
    log.api.get("/api/wallet", headers={"Authorization": f"Bearer {wrong_token}"})
    log.api.get("/api/wallet", headers={"Authorization": "Basic the-basic-credentials"})
    log.api.get(f"/api/admin/wallets?q=the-search&access_token={person.token}", person, "eur")
    log.api.post("/api/wallet/payments", person, "eur", key="the-key", json={"amount": "the-amount"})
    text = log.text()
    signature = person.token.rpartition(".")[2]
    assert text.count('"event":"request"') == 7
    for secret in (
        *("the right password", "the wrong password", wrong_token, "the-wrong-token", person.token, signature),
        *("Authorization", "Bearer", "the-cookie", "the-basic-credentials", "argon2", "the-search", "the-key"),
        *("the-amount", database.passwords[database.roles.app], database.tenant_secret),
    ):
        assert secret not in text, secret


def test_a_sane_request_id_is_kept(log: Log) -> None:
    for request_id in ("a", "A-1_b.c", "x" * 64, "00000000-0000-0000-0000-000000000000"):
        response = log.api.get("/livez", headers={"X-Request-Id": request_id})
        assert response.headers["X-Request-Id"] == log.line()["request_id"] == request_id


WRONG_IDS = ["", " ", "x" * 65, "a b", "a,b", '{"a": 1}', "é", "١", "a\x1b[31m", "a\x00", "<script>", "%0a", "a\t"]


def test_any_other_request_id_is_replaced(log: Log) -> None:
    for request_id in WRONG_IDS:
        response = log.api.get("/livez", headers={"X-Request-Id": request_id.encode().decode("latin-1")})
        replaced = response.headers["X-Request-Id"]
        assert (UUID(replaced).version, UUID(replaced).variant) == (4, RFC_4122)
        assert str(UUID(replaced)) == replaced
        assert log.line()["request_id"] == replaced


def test_each_request_has_an_id_of_its_own_and_errors_carry_it(log: Log) -> None:
    responses = [log.api.get(path) for path in ("/livez", "/livez", "/nowhere", "/api/me")]
    ids = [response.headers["X-Request-Id"] for response in responses]
    assert len(set(ids)) == 4
    assert [line["request_id"] for line in log.lines()] == ids


def test_an_unexpected_error_is_logged_in_full_with_the_request_and_told_to_nobody(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> Any:
        raise RuntimeError("the cause")

    person = log.people.make(eur="member")
    monkeypatch.setattr(users, "shown_memberships_of", fail)
    log.text()
    response = log.api.get("/api/me", person)
    error, request = log.lines()
    assert (error["event"], error["level"]) == ("unexpected_error", "error")
    assert "RuntimeError: the cause" in error["exception"]
    assert error["request_id"] == request["request_id"] == response.headers["X-Request-Id"]
    assert request["status"] == 500
    assert "the cause" not in response.text


@pytest.mark.parametrize(("level", "count"), [("debug", 1), ("info", 1), ("warning", 0), ("error", 0)])
def test_the_level_decides_what_is_printed(database: Database, level: str, count: int) -> None:
    with logged(database, log_level=level) as log:
        log.api.get("/livez")
        assert len(log.lines()) == count
