"""`scripts.migrate` migrates every schema and reports each, or prints the plan."""

import json

import pytest

from app.tenancy import MIGRATIONS
from tenant_schemas.migrations.history import History
from tenant_schemas.testing.plugin import Database
from tests.factories.locks import held_table
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
    superuser.execute("UPDATE shared.tenants SET revision = '0007x' WHERE slug = 'eur'")
    result = run("migrate", "--json")
    assert result.exit_code == 1
    errors = {outcome["schemaName"]: outcome["error"] for outcome in json.loads(result.output)}
    assert "0007x is not in this history" in errors["eur_schema"]
    assert errors["km_schema"] is None


def test_newer_schemas_are_told_and_are_no_failure(run: Run, fresh_database: Database) -> None:
    """As after a release that was rolled back."""
    superuser = fresh_database.as_superuser()
    superuser.execute("UPDATE shared.tenants SET revision = '9999' WHERE slug = 'eur'")
    superuser.execute("UPDATE shared.alembic_version SET version_num = '9999'")
    for arguments in ((), ("--dry-run",)):
        result = run("migrate", *arguments)
        assert result.exit_code == 0, result.output
        assert result.output.count("9999 is newer than this code") == 2


def test_a_statement_longer_than_the_statement_timeout_fails(run: Run, fresh_database: Database) -> None:
    """It waits for a lock, but not as long as the lock time-out. The tenant is still at one of the first revisions."""
    fresh_database.as_superuser().execute("UPDATE shared.tenants SET revision = '0007' WHERE slug = 'eur'")
    fresh_database.as_superuser().execute("UPDATE eur_schema.alembic_version SET version_num = '0007'")
    with held_table(fresh_database, "eur_schema.audit_log"):
        result = run("migrate", "--statement-timeout", "200", "--lock-timeout", "20000", "--json")
    states = {outcome["schemaName"]: outcome["sqlstate"] for outcome in json.loads(result.output)}
    assert (result.exit_code, states["eur_schema"]) == (1, "57014")


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
