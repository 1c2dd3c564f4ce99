"""Operators pause the webhooks of a tenant of any status."""

from uuid import UUID, uuid4

import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.factories.tenants import archive_tenant

ENABLED = "SELECT id FROM webhook_endpoints WHERE status = 'enabled' ORDER BY created_at, id"
MAKE = "SELECT id FROM webhook_create_v1('https://localhost/hook', NULL, '{}', 'full', 'wallet')"


@pytest.fixture
def ids(fresh_database: Database) -> list[UUID]:
    """Two webhooks of the tenant `eur`, which is archived, and one of another tenant."""
    fresh_database.as_tenant("km").execute(MAKE)
    made = [fresh_database.as_tenant("eur").execute(MAKE).fetchone() for _ in range(2)]
    archive_tenant(fresh_database, "eur")
    return [row[0] for row in made if row]


def disable(app: Flask, *arguments: str) -> tuple[int, str]:
    done = app.test_cli_runner().invoke(args=["webhooks", "disable", *arguments])
    return done.exit_code, done.output


def enabled(database: Database, slug: str = "eur") -> list[UUID]:
    connection = database.as_superuser()
    connection.execute(f"SET search_path TO {slug}_schema".encode())
    return [row[0] for row in connection.execute(ENABLED).fetchall()]


def test_one_webhook_or_all_of_an_archived_tenant_are_disabled_and_no_other_tenants(
    fresh_app: Flask, fresh_database: Database, ids: list[UUID]
) -> None:
    assert disable(fresh_app, "--tenant", "eur", "--id", str(ids[0])) == (0, f"{ids[0]}\n")
    assert enabled(fresh_database) == [ids[1]]
    assert disable(fresh_app, "--tenant", "eur") == (0, f"{ids[1]}\n")
    assert enabled(fresh_database) == []
    assert disable(fresh_app, "--tenant", "eur") == (0, "")
    assert len(enabled(fresh_database, "km")) == 1
    reasons = "SELECT DISTINCT disabled_reason FROM eur_schema.webhook_endpoints"
    assert fresh_database.as_superuser().execute(reasons).fetchall() == [("admin",)]


def test_a_webhook_or_tenant_that_is_not_there_is_an_error(fresh_app: Flask, ids: list[UUID]) -> None:
    for arguments in (("--tenant", "eur", "--id", str(uuid4())), ("--tenant", "nobody")):
        code, output = disable(fresh_app, *arguments)
        assert (code, output.startswith("Error: ")) == (1, True), output
