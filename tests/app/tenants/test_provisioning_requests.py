"""Requests for a tenant over HTTP: refusals by name, which store nothing."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from threading import enumerate as running_threads
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from app import create_app
from app.tenancy import RESERVED_SLUGS
from app.tenants import provisioning_requests
from app.tenants.provisioning_worker import start_provisioner
from tenant_schemas.flask import EXTENSION
from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import faults_of, problem_of
from tests.app.tenants.conftest import TENANTS, Installation, ask, asked, became, remains, work_off
from tests.conftest import settings_for
from tests.factories.api import Api
from tests.factories.metrics import Growth
from tests.factories.people import Person


@pytest.mark.parametrize("slug", [*sorted(RESERVED_SLUGS), "shared", "public", "pg_x", "Eur", "é", "a-b", "1a", "a b"])
def test_a_name_that_no_tenant_may_have_is_refused(api: Api, operator: Person, slug: str) -> None:
    response = api.send("POST", TENANTS, operator, json={"id": slug, "currency": "EUR"})
    assert faults_of(response) == [("id", "name_refused")]


WRONG: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"currency": "XXX"}, [("currency", "not_a_currency")]),
    ({"currency": None}, [("currency", "required")]),
    ({"currencies": ["EUR", 5]}, [("currencies.1", "not_a_currency")]),
    ({"currencies": "USD"}, [("currencies", "not_a_list")]),
    ({"locale": "tlh_XX"}, [("locale", "not_a_locale")]),
    ({"settings": {"maxConnections": True}}, [("settings.maxConnections", "not_a_number")]),
    ({"settings": {"rateLimit": None}}, [("settings.rateLimit", "not_a_rate")]),
    ({"settings": {"schemaName": "eur_schema"}}, [("settings.schemaName", "unknown_field")]),
    ({"schemaName": "eur_schema"}, [("schemaName", "unknown_field")]),
    ({"status": "active"}, [("status", "unknown_field")]),
]


@pytest.mark.parametrize(("told", "faults"), WRONG, ids=str)
def test_a_wrong_request_is_named_and_not_written_down(
    api: Api, operator: Person, database: Database, told: dict[str, Any], faults: list[tuple[str, str]]
) -> None:
    response = api.send("POST", TENANTS, operator, json={"id": "wrong", "currency": "EUR"} | told)
    assert faults_of(response) == faults
    query = "SELECT count(*) FROM shared.provisionings WHERE slug = 'wrong'"
    assert database.as_superuser().execute(query).fetchone() == (0,)


def test_a_slug_that_is_taken_is_a_conflict(own: Installation, slug: str) -> None:
    problem_of(ask(own, "eur"), 409, "tenant_exists")
    asked(own, slug)
    problem_of(ask(own, slug), 409, "tenant_exists")
    work_off(own.app)
    problem_of(ask(own, slug), 409, "tenant_exists")


def test_of_many_who_ask_for_one_slug_at_once_one_is_heard(own: Installation, slug: str) -> None:
    together = Barrier(6)

    def ask_too() -> int:
        together.wait(timeout=10)
        body = {"id": slug, "currency": "CHF"}
        return Api(own.app).send("POST", TENANTS, own.operator, json=body).status_code

    with ThreadPoolExecutor(6) as pool:
        answers = [job.result() for job in [pool.submit(ask_too) for _ in range(6)]]
    assert sorted(answers) == [202] + [409] * 5
    work_off(own.app)
    assert len(remains(own.database, slug)) == 3


def test_only_so_many_may_wait(own: Installation, slug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provisioning_requests, "MOST_PENDING", 2)
    asked(own, f"{slug}a")
    asked(own, f"{slug}b")
    growth = Growth(("wallet_limited_total", {"limit": "pending", "of": "provisioning"}))
    response = ask(own, f"{slug}c")
    assert growth() == [1]
    problem_of(response, 429, "too_many_provisionings")
    assert response.headers["Retry-After"]
    work_off(own.app)
    asked(own, f"{slug}c")


@pytest.fixture
def unable(own: Installation) -> Iterator[Installation]:
    """A process without the migrator's login."""
    app = create_app(settings_for(own.database, admin_database_url=""))
    yield Installation(app, own.database)
    app.extensions[EXTENSION].close()


def test_without_the_migrators_login_nothing_is_promised(unable: Installation, own: Installation, slug: str) -> None:
    assert "ADMIN_DATABASE_URL" in problem_of(ask(unable, slug), 503, "provisioning_unavailable")["detail"]
    location = asked(own, slug)
    start_provisioner(unable.app, 0.01)
    assert all(thread.name != "provisioner" for thread in running_threads())
    work_off(unable.app)
    assert became(unable, location)["status"] == "pending", "and nothing of others is touched"


def test_what_became_of_nothing_is_not_found(api: Api, operator: Person) -> None:
    problem_of(api.get(f"{TENANTS}/provisionings/{uuid4()}", operator), 404, "provisioning_not_found")


def test_the_service_itself_can_not_say_that_a_tenant_is_made(database: Database) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.as_role("wallet_app").execute("UPDATE shared.provisionings SET status = 'done', finished_at = now()")
