"""The report of a run names what failed, to the statement, and counts every schema that was to be migrated."""

from typing import Any

import pytest

from tenant_schemas.migrations.history import History, Migrations
from tenant_schemas.testing.plugin import Database
from tests.factories.histories import HEAD, add_revision, run

pytestmark = pytest.mark.both_servers

FIRST, SECOND = (f"{int(HEAD) + more:04d}" for more in (1, 2))
ADD = "op.execute(\"ALTER TABLE wallets ADD COLUMN note text; COMMENT ON COLUMN wallets.note IS 'a; b'\")"
ON_EXISTING = 'op.execute("SELECT 1; ALTER TABLE wallets ADD COLUMN more text; CREATE TABLE probes ()")'


@pytest.mark.parametrize("options", [{}, {"is_atomic": True}], ids=["each", "atomic"])
def test_a_failure_names_its_revision_and_statement(
    fresh_database: Database, histories: Migrations, options: dict[str, Any]
) -> None:
    add_revision(histories, ADD)
    add_revision(histories, ON_EXISTING)
    fresh_database.as_superuser().execute("CREATE TABLE km_schema.probes ()")
    outcomes = run(fresh_database, histories, **options)
    assert outcomes["km"].sqlstate == "42P07"
    assert f"Revision {SECOND}: CREATE TABLE probes ()" in (outcomes["km"].error or "")
    assert outcomes["eur"].has_failed is bool(options)


@pytest.mark.parametrize(
    ("statement", "sqlstate", "named"),
    [
        ("SELECT 1; SELECT nothing FROM wallets", "42703", "SELECT nothing FROM wallets"),
        ("SELECT 1; ALTER TABLE wallets ALTER COLUMN", "42601", "ALTER TABLE wallets ALTER COLUMN"),
        ("SELECT 1; LOCK TABLE wallets", "55P03", "LOCK TABLE wallets"),
    ],
    ids=["name", "syntax", "lock"],
)
def test_so_do_errors_of_names_of_syntax_and_of_locks(
    fresh_database: Database, histories: Migrations, statement: str, sqlstate: str, named: str
) -> None:
    add_revision(histories, ADD)
    add_revision(histories, f'op.execute("{statement}")')
    run(fresh_database, histories, to=FIRST)
    superuser = fresh_database.as_superuser()
    with superuser.transaction():
        superuser.execute("SELECT FROM km_schema.wallets")
        km = run(fresh_database, histories, lock_timeout_ms=50, attempts=1)["km"]
    assert (km.sqlstate, f"Revision {SECOND}: {named}" in (km.error or "")) == (sqlstate, True), km.error


def test_a_revision_that_runs_python_is_named_with_its_statement(
    fresh_database: Database, histories: Migrations
) -> None:
    add_revision(histories, "op.execute('SELECT nothing FROM wallets')", runs_python=True)
    error = run(fresh_database, histories)["km"].error or ""
    assert f"Revision {FIRST}: SELECT nothing FROM wallets" in error


def test_a_schema_that_is_gone_is_gone_also_for_a_run_with_nothing_to_do(
    fresh_database: Database, histories: Migrations
) -> None:
    fresh_database.as_superuser().execute("DROP SCHEMA km_schema CASCADE")
    assert "Schema km_schema of tenant km is gone" in (run(fresh_database, histories)["km"].error or "")
    add_revision(histories, ADD)
    outcomes = run(fresh_database, histories)
    assert "Schema km_schema of tenant km is gone" in (outcomes["km"].error or "")
    assert outcomes["eur"].after == FIRST


def test_tenants_behind_a_failed_shared_schema_are_counted_as_not_reached(
    fresh_database: Database, histories: Migrations
) -> None:
    add_revision(histories, "op.execute('SELECT nothing')", history=History.SHARED)
    add_revision(histories, ADD)
    outcomes = run(fresh_database, histories)
    assert outcomes["shared"].has_failed
    assert {slug for slug, outcome in outcomes.items() if outcome.was_skipped} == {"eur", "km"}
