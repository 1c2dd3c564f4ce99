"""Every error is an RFC 9457 problem with facts for the caller and none from inside.

The other tests of the API check problems with `problem_of` and `answer_of`.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import Any, Literal
from uuid import UUID

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app import create_app, errors
from app.api import problems
from app.db import db
from app.users import service as users
from app.wallets import service as wallets
from tenant_schemas import errors as tenancy
from tenant_schemas.flask import EXTENSION, connections, shared_side
from tenant_schemas.testing.plugin import Database
from tests.conftest import settings_for
from tests.factories.api import Api
from tests.factories.people import People

INSIDES = re.compile(r"Traceback|SELECT|INSERT|UPDATE |psycopg|sqlalchemy|SQLSTATE|search_path|_schema\b|\.py\b", re.I)


def problem_of(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    """The response's problem, after checking its form, status and code."""
    told = response.get_data(as_text=True)
    assert (response.status_code, response.mimetype) == (status, "application/problem+json"), told
    problem: dict[str, Any] = response.get_json(force=True)
    assert (problem["status"], problem["code"]) == (status, code), told
    assert (problem["type"], problem["title"]) == (f"/problems/{code}", problems.title_of(code))
    assert problem["detail"]
    assert not INSIDES.search(told), told
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Request-Id"]
    return problem


def faults_of(response: TestResponse) -> list[tuple[str, str]]:
    """Field and code of each fault of an invalid request."""
    problem = problem_of(response, 422, "validation_failed")
    assert all(fault["message"] for fault in problem["errors"])
    return [(fault["field"], fault["code"]) for fault in problem["errors"]]


# What a table of cases is compared with: the status, and the faults or else the code.
Answer = list[Any]


def answer_of(response: TestResponse) -> Answer:
    """The status and the faults or code of an answer, after checking that an error is a problem."""
    if response.status_code < 400:
        return [response.status_code]
    problem = problem_of(response, response.status_code, response.get_json(force=True)["code"])
    faults = [(fault["field"], fault["code"]) for fault in problem.get("errors", ())]
    return [response.status_code, *(faults or [problem["code"]])]


def refused_at(field_name: str | None, code: str) -> Answer:
    return [422, (field_name, code)]


@contextmanager
def running(database: Database, **changed: Any) -> Iterator[Flask]:
    """A separate application on a test database, with some settings changed."""
    app = create_app(settings_for(database, **changed))
    try:
        yield app
    finally:
        app.extensions[EXTENSION].close()


def kinds_of(root: type[errors.ServiceError]) -> Iterator[type[errors.ServiceError]]:
    for kind in root.__subclasses__():
        yield kind
        yield from kinds_of(kind)


def test_every_error_of_a_feature_has_a_status_and_a_code_of_its_own() -> None:
    kinds = list(kinds_of(errors.ServiceError))
    codes = [vars(kind)["code"] for kind in kinds if "code" in vars(kind)]
    assert len(codes) > 20
    assert len(codes) == len(set(codes))
    for kind in kinds:
        assert any(parent in problems.STATUS_OF_KIND for parent in kind.__mro__), kind
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", getattr(kind, "code", "root")), kind


ANSWERS: list[tuple[Exception, int, str]] = [
    (tenancy.TenantRequired("x"), 400, "tenant_required"),
    (tenancy.TenantAmbiguous("x"), 400, "tenant_ambiguous"),
    (tenancy.TenantNotFound("x"), 404, "tenant_not_found"),
    (tenancy.SchemaBehind("x"), 503, "schema_behind"),
    (tenancy.ConnectionsExhausted("x"), 503, "busy"),
    (tenancy.BindingMismatch("a secret"), 503, "database_unavailable"),
    (tenancy.NotBound("a secret"), 500, "internal_error"),
    (KeyError("a secret"), 500, "internal_error"),
    (RecursionError("a secret"), 500, "internal_error"),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: type(answer[0]).__name__)
def test_an_error_is_a_problem_and_an_unexpected_one_keeps_its_words(
    api: Api,
    people: People,
    monkeypatch: pytest.MonkeyPatch,
    refusals_are_declared: list[str],
    answer: tuple[Exception, int, str],
) -> None:
    error, status, code = answer

    def fail(_: Any) -> Any:
        raise error

    person = people.make(eur="member")
    monkeypatch.setattr(users, "shown_memberships_of", fail)
    response = api.get("/api/me", person)
    problem_of(response, status, code)
    refusals_are_declared.clear()
    assert "secret" not in response.get_data(as_text=True)
    assert response.headers.get("Retry-After") == ("2" if status == 503 else None)
    monkeypatch.undo()
    assert api.get("/api/me", person).status_code == 200, "the next request is none the worse for it"


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/", "/api/eur", "/api/eur/", "/api/nothing", "/api/wallet/", "/api/eur/km/wallet", "/é"]
)
def test_an_unknown_path_is_not_found_for_anybody(api: Api, path: str) -> None:
    problem_of(api.get(path), 404, "not_found")


def test_a_wrong_method_is_told_which_are_right_on_every_route(app: Flask, api: Api) -> None:
    methods: dict[str, set[str]] = {}
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/api/") or rule.endpoint.startswith("health."):
            methods.setdefault(rule.rule, set()).update(rule.methods or ())
    assert len(methods) > 10
    for path, allowed in methods.items():
        sent = re.sub(r"<uuid:\w+>", "00000000-0000-4000-8000-000000000000", path)
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"} - allowed:
            response = api.send(method, sent)
            assert set(response.headers["Allow"].split(", ")) == allowed, (method, path)
            if method != "HEAD":
                problem_of(response, 405, "method_not_allowed")


def test_a_body_over_the_limit_is_refused(api: Api, people: People) -> None:
    person = people.make(eur="member")
    just_right = b'{"amount": "1.00"' + b" " * (65_536 - 18) + b"}"
    answer = api.post("/api/wallet/payments", person, "eur", data=just_right, content_type="application/json")
    assert answer.get_json(force=True)["code"] == "insufficient_funds"
    answer = api.post("/api/wallet/payments", person, "eur", data=just_right + b" ", content_type="application/json")
    problem_of(answer, 413, "body_too_large")


def test_a_refusal_for_want_of_a_token_says_which_scheme(api: Api) -> None:
    response = api.get("/api/me")
    problem_of(response, 401, "token_missing")
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("logins", ["own", "shared"])
@pytest.mark.parametrize("is_open", [False, True], ids=["new session", "open session"])
def test_a_tenant_whose_schema_is_gone_is_not_asked_for_again(
    fresh_database: Database, is_open: bool, logins: Literal["own", "shared"]
) -> None:
    """No repetition helps, and the other tenants are none the worse for it."""
    with running(fresh_database, tenant_logins=logins) as app:
        api, person = Api(app), People(app).make(eur="member", km="member")
        if is_open:
            assert api.get("/api/wallet", person, "eur").status_code == 200
        fresh_database.as_superuser().execute("DROP SCHEMA eur_schema CASCADE")
        for _ in range(2):
            for response in (
                api.get("/api/wallet", person, "eur"),
                api.post("/api/wallet/payments", person, "eur", json={"amount": "1.00"}),
            ):
                problem_of(response, 500, "schema_missing")
                assert "Retry-After" not in response.headers
        assert api.get("/api/wallet", person, "km").status_code == 200


READS = ["/api/me", "/api/wallet", "/api/admin/wallets", "/api/wallet/transactions"]


@pytest.mark.parametrize("path", READS)
def test_without_a_database_a_request_may_come_again(database: Database, people: People, path: str) -> None:
    person = people.make(eur="admin")
    nowhere = "postgresql://wallet_app:secret-of-the-url@127.0.0.1:1/wallet"
    with running(database, database_url=nowhere) as app:
        response = Api(app).get(path, person, "eur")
    problem_of(response, 503, "database_unavailable")
    assert response.headers["Retry-After"] == "2"
    assert "secret-of-the-url" not in response.get_data(as_text=True)


def test_a_restart_of_the_database_costs_no_request(fresh_database: Database, fresh_app: Flask) -> None:
    """A connection that the server has closed is detected before its next use."""
    api, person = Api(fresh_app), People(fresh_app).make(eur="admin", km="admin")
    answers = []
    for path in READS:
        for slug in ("eur", "km"):
            assert api.get(path, person, slug).status_code == 200
        hang_up_on_all(fresh_database)
        answers += [(path, slug, api.get(path, person, slug).status_code) for slug in ("eur", "km")]
    assert answers == [(path, slug, 200) for path in READS for slug in ("eur", "km")]


def hang_up_on_all(database: Database) -> None:
    database.as_superuser().execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def test_a_connection_lost_before_the_commit_may_come_again(
    fresh_database: Database, fresh_app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit runs after the view, outside Flask's error handling, and fails like any other statement."""
    admin = People(fresh_app).make(eur="admin")

    def open_and_lose(*arguments: Any, **named: Any) -> Any:
        found = open_wallet(*arguments, **named)
        hang_up_on_all(fresh_database)
        return found

    open_wallet = wallets.open_wallet
    monkeypatch.setattr(wallets, "open_wallet", open_and_lose)
    response = Api(fresh_app).post("/api/admin/wallets", admin, "eur", json={"userId": str(admin.user_id)})
    problem_of(response, 503, "database_unavailable")
    assert response.headers["Retry-After"] == "2"


@contextmanager
def wallet_locked(database: Database, slug: str, wallet_id: UUID) -> Iterator[None]:
    """Another session holds the lock on the wallet's row."""
    other = database.as_superuser()
    with other.transaction():
        other.execute(f"SELECT FROM {slug}_schema.wallets WHERE id = %s FOR UPDATE", (wallet_id,))
        yield


@pytest.mark.parametrize("slug", ["eur", "km"])
@pytest.mark.parametrize("what", ["payment", "configure"])
def test_a_statement_that_waits_too_long_is_given_up(database: Database, what: str, slug: str) -> None:
    with running(database, statement_timeout_ms=150) as app, ThreadPoolExecutor(1) as pool:
        people, api = People(app), Api(app)
        admin = people.make(**{slug: "admin"})
        wallet_id = people.wallet(admin, slug, balance_minor=1000)

        def send() -> TestResponse:
            if what == "payment":
                return api.post("/api/wallet/payments", admin, slug, json={"amount": "1.00"})
            path = f"/api/admin/wallets/{wallet_id}"
            return api.patch(path, admin, slug, if_match='"1"', json={"status": "frozen"})

        with wallet_locked(database, slug, wallet_id):
            answer = pool.submit(send)
            given_up = wait([answer], timeout=5).done
        assert given_up, "it waited for as long as the other held the row"
        problem_of(answer.result(), 503, "database_unavailable")
        wallet = api.get("/api/wallet", admin, slug).json
        assert (wallet["balance"], wallet["status"]) == ("10.00", "active")


def test_with_all_connections_in_use_a_request_may_come_again(database: Database, people: People) -> None:
    person = people.make(eur="member")
    with running(database, max_connections=2, connection_wait_seconds=0.05) as app:
        api = Api(app)
        with app.app_context(), ExitStack() as held:
            held.enter_context(connections().shared.connect())  # One of the two is left to tenants.
            response = api.get("/api/wallet", person, "eur")
        problem_of(response, 503, "busy")
        assert response.headers["Retry-After"] == "2"
        assert api.get("/api/wallet", person, "eur").status_code == 200


def test_an_error_leaves_nothing_written(
    app: Flask, api: Api, people: People, monkeypatch: pytest.MonkeyPatch, refusals_are_declared: list[str]
) -> None:
    """A view that fails after writing is rolled back, and its connection returns clean."""
    person = people.make(eur="member")

    def write_and_fail(user_id: Any) -> Any:
        users.add_user("half-written@example.com", "Test Person", None)
        raise errors.Malformed("no")

    monkeypatch.setattr(users, "shown_memberships_of", write_and_fail)
    problem_of(api.get("/api/me", person), 400, "malformed_request")
    refusals_are_declared.clear()
    with app.app_context(), shared_side():
        assert users.find_user("half-written@example.com") is None
        db.session.commit()
