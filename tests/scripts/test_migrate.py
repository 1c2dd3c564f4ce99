"""`scripts.migrate` migrates every schema and reports each, or prints the plan."""

import json

import pytest

from app.tenancy import MIGRATIONS
from tenant_schemas.migrations.history import History
from tenant_schemas.testing.plugin import Database
from tests.factories.script_runner import Run


@pytest.fixture
def tenant_logins() -> str:
    """Tenants may log in themselves and through the pool."""
    return "shared"


def test_migrate_reports_every_schema(run: Run) -> None:
    result = run("migrate", "--json")
    assert result.exit_code == 0
    assert [outcome["schemaName"] for outcome in json.loads(result.output)] == ["shared", "eur_schema", "km_schema"]


def test_migrate_fails_for_the_tenant_that_is_in_the_way_alone(run: Run, fresh_database: Database) -> None:
    superuser = fresh_database.as_superuser()
    superuser.execute("UPDATE shared.tenants SET revision = '9999' WHERE slug = 'eur'")
    result = run("migrate", "--json")
    assert result.exit_code == 1
    errors = {outcome["schemaName"]: outcome["error"] for outcome in json.loads(result.output)}
    assert "9999 is not in this history" in errors["eur_schema"]
    assert errors["km_schema"] is None


def test_a_dry_run_shows_the_sql_and_does_nothing(run: Run, fresh_database: Database) -> None:
    """For a tenant that is still at the first revision."""
    fresh_database.as_superuser().execute("UPDATE shared.tenants SET revision = '0007' WHERE slug = 'eur'")
    result = run("migrate", "--dry-run")
    assert result.exit_code == 0, result.output
    steps = int(MIGRATIONS.head(History.TENANT)) - 7
    assert f"-- eur: {steps} steps from 0007." in result.output
    assert "audit_log: ACCESS EXCLUSIVE" in result.output
    assert "CREATE TABLE audit_chain" in result.output
    assert fresh_database.tenant("eur").revision == "0007"


def test_migrate_refuses_a_tenant_that_does_not_exist(run: Run) -> None:
    assert run("migrate", "--tenant", "nope").exit_code == 2


def test_wrong_settings_exit_2_and_list_every_fault(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "foo")
    monkeypatch.setenv("STATEMENT_TIMEOUT_MS", "99999999999")
    monkeypatch.setenv("SECRET_KEY", "short")
    result = run("migrate")
    assert result.exit_code == 2
    for name in ("DATABASE_URL", "STATEMENT_TIMEOUT_MS", "SECRET_KEY"):
        assert name in result.output
