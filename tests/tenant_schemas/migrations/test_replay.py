"""The guard of a tenant's db transaction refuses a schema that is not where the steps begin, before any step."""

from pathlib import Path

import pytest

from tenant_schemas.errors import MigrationError
from tenant_schemas.migrations.history import Migrations, Outcome
from tenant_schemas.migrations.runner import MigrateOptions, Plan, migrate
from tenant_schemas.testing.plugin import Database
from tests.factories.histories import HEAD, add_revision, copied_histories

pytestmark = pytest.mark.both_servers

# A sequence does not return to its value when a db transaction is rolled back: it counts the steps that began.
COUNTED = "op.execute(\"SELECT nextval('shared.steps')\")"


@pytest.fixture
def histories(fresh_database: Database, tmp_path: Path) -> Migrations:
    """The histories with one more revision, which counts the schemas in which it began."""
    superuser = fresh_database.as_superuser()
    superuser.execute("CREATE SEQUENCE shared.steps")
    superuser.execute("GRANT USAGE ON SEQUENCE shared.steps TO wallet_owner")
    histories = copied_histories(tmp_path)
    add_revision(histories, COUNTED)
    return histories


def run_after(database: Database, histories: Migrations, *statements: str) -> tuple[dict[str | None, Outcome], int]:
    """A run in which a superuser runs the statements after the plan: outcomes by slug, and the steps that began."""

    def change(_: Plan) -> None:
        for statement in statements:
            database.as_superuser().execute(statement.encode())

    run = migrate(database.admin_engine(), histories, MigrateOptions(), change)
    outcomes = {outcome.slug: outcome for outcome in run}
    row = database.as_superuser().execute("SELECT nextval('shared.steps')").fetchone()
    assert row
    return outcomes, int(row[0]) - 1


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("ALTER SCHEMA km_schema RENAME TO elsewhere", "does not resolve to schema km_schema alone"),
        ("UPDATE shared.tenants SET schema_name = 'other' WHERE slug = 'km'", "no longer says that km is at"),
        ("UPDATE shared.tenants SET revision = '0001' WHERE slug = 'km'", "no longer says that km is at"),
        ("DELETE FROM shared.tenants WHERE slug = 'km'", "no longer says that km is at"),
        ("UPDATE km_schema.alembic_version SET version_num = '0001'", "it was changed by hand"),
        ("DELETE FROM km_schema.alembic_version", "it was changed by hand"),
        ("INSERT INTO km_schema.alembic_version VALUES ('0001')", "it was changed by hand"),
    ],
)
def test_a_schema_that_is_not_where_the_steps_begin_gets_no_step(
    fresh_database: Database, histories: Migrations, statement: str, reason: str
) -> None:
    outcomes, steps = run_after(fresh_database, histories, statement)
    assert (outcomes["km"].sqlstate, outcomes["km"].after) == ("TS001", HEAD)
    assert reason in (outcomes["km"].error or "")
    assert (outcomes["eur"].error, steps) == (None, 1)


def test_without_a_change_each_schema_gets_its_steps_once(fresh_database: Database, histories: Migrations) -> None:
    outcomes, steps = run_after(fresh_database, histories)
    assert {slug for slug, outcome in outcomes.items() if outcome.error} == set()
    assert steps == 2
    assert {tenant.revision for tenant in fresh_database.tenants()} == {f"{int(HEAD) + 1:04d}"}


def test_a_shared_schema_without_the_functions_is_refused_before_any_step(
    fresh_database: Database, histories: Migrations
) -> None:
    """With --to the run does not migrate `shared`."""
    fresh_database.as_superuser().execute("DROP FUNCTION shared.migration_done_v1")
    options = MigrateOptions(to=f"{int(HEAD) + 1:04d}")
    with pytest.raises(MigrationError, match="too old to record runs"):
        list(migrate(fresh_database.admin_engine(), histories, options))
    assert {tenant.revision for tenant in fresh_database.tenants()} == {HEAD}
