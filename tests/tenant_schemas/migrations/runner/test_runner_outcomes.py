"""Each schema is migrated to its head alone; a failed one is reported, stays unchanged and stops no other.

The histories here are those of the repository with scratch revisions after them.
"""

from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from psycopg import sql

from tenant_schemas.errors import TenantNotFound
from tenant_schemas.migrations import runner
from tenant_schemas.migrations.history import History, Migrations, Outcome
from tenant_schemas.migrations.runner import MigrateOptions
from tenant_schemas.tenant import TenantStatus
from tenant_schemas.testing.plugin import Database, make_tenant
from tests.factories.scratch_revision import (
    BEFORE,
    HEAD,
    PROBES,
    SCHEMAS,
    STEPS,
    assert_as_before,
    assert_migrated,
    migrate,
    migrations_in,
    next_number,
    tables_in,
    write_revision,
)


def test_every_tenant_goes_to_the_head_and_says_so_as_it_happens(fresh_database: Database, scratch: Migrations) -> None:
    """Also tenants that are archived or suspended, otherwise they could never come back. A second run has nothing to
    do.
    """
    with fresh_database.as_superuser() as superuser:
        superuser.execute("UPDATE shared.tenants SET status = 'archived' WHERE slug = 'eur'")
        superuser.execute("UPDATE shared.tenants SET status = 'suspended' WHERE slug = 'km'")
    outcomes = runner.migrate(fresh_database.admin_engine(), scratch, MigrateOptions(jobs=1))
    assert next(outcomes).schema_name == "shared"
    assert_as_before(fresh_database, "eur")
    assert {next(outcomes), next(outcomes)} == {
        Outcome("eur_schema", "eur", BEFORE, HEAD),
        Outcome("km_schema", "km", BEFORE, HEAD),
    }
    assert next(outcomes, None) is None
    assert_migrated(fresh_database, "eur")
    assert_migrated(fresh_database, "km")
    for slug, status in (("eur", TenantStatus.ARCHIVED), ("km", TenantStatus.SUSPENDED)):
        assert fresh_database.tenant(slug).status is status
    for elsewhere in ("shared", "public"):
        assert not tables_in(fresh_database, elsewhere) & PROBES
    assert set(migrate(scratch, fresh_database).values()) == {
        Outcome("eur_schema", "eur", HEAD, HEAD, attempts=0),
        Outcome("km_schema", "km", HEAD, HEAD, attempts=0),
    }


def test_a_revision_runs_as_the_owner_in_that_schema_alone_under_time_outs(
    fresh_database: Database, scratch: Migrations
) -> None:
    """With exactly one schema in the search_path: with two, Alembic could find the other tenant's version table."""
    migrate(scratch, fresh_database)
    for slug, schema_name in SCHEMAS.items():
        query = sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema_name, "probe"))
        assert fresh_database.as_superuser().execute(query).fetchone() == (
            "wallet_owner",
            f"{{pg_catalog,{schema_name}}}",
            f"{schema_name}, pg_temp",
            "2s",
            "10min",
            f"tenant_{slug}",
        )


def test_only_the_tenants_that_are_named_are_migrated(fresh_database: Database, scratch: Migrations) -> None:
    """An unknown name stops the run before it begins."""
    with pytest.raises(TenantNotFound, match="unknown"):
        migrate(scratch, fresh_database, "km", "unknown")
    assert_as_before(fresh_database, "km")
    assert list(migrate(scratch, fresh_database, "km")) == ["km"]
    assert_migrated(fresh_database, "km")
    assert_as_before(fresh_database, "eur")


def test_a_tenant_made_after_a_migration_is_at_the_new_head(fresh_database: Database, scratch: Migrations) -> None:
    tenant = make_tenant(fresh_database, scratch, "late", {})
    assert tenant.revision == HEAD
    assert tables_in(fresh_database, "late_schema") >= PROBES
    assert set(migrate(scratch, fresh_database).values()) == {
        Outcome("eur_schema", "eur", BEFORE, HEAD),
        Outcome("km_schema", "km", BEFORE, HEAD),
        Outcome("late_schema", "late", HEAD, HEAD, attempts=0),
    }


def assert_only_km_migrated(database: Database, outcomes: dict[str | None, Outcome], reason: str) -> None:
    failed = outcomes["eur"]
    assert failed.has_failed
    assert (failed.schema_name, failed.before, failed.after) == ("eur_schema", BEFORE, BEFORE)
    assert reason in (failed.error or "")
    assert "\n" not in (failed.error or "")
    assert_as_before(database, "eur")
    assert outcomes["km"] == Outcome("km_schema", "km", BEFORE, HEAD)
    assert_migrated(database, "km")


def test_a_table_in_the_way_stops_one_tenant_only(fresh_database: Database, scratch: Migrations) -> None:
    """When the table is gone, the same run migrates the tenant to head."""
    fresh_database.as_superuser().execute("CREATE TABLE eur_schema.probe (id uuid)")
    assert_only_km_migrated(fresh_database, migrate(scratch, fresh_database), '"probe" already exists')
    fresh_database.as_superuser().execute("DROP TABLE eur_schema.probe")
    assert migrate(scratch, fresh_database)["eur"] == Outcome("eur_schema", "eur", BEFORE, HEAD)


HASTE = {"lock_timeout_ms": 150, "attempts": 2, "first_delay_seconds": 0.05}


def migrate_while(locked: sql.SQL, scratch: Migrations, database: Database) -> dict[str | None, Outcome]:
    """Migrate while another db transaction holds a lock; it releases the lock after 5 s, so that an endless wait is a
    failure.
    """
    superuser = database.as_superuser()
    with ThreadPoolExecutor(1) as pool:
        with superuser.transaction():
            superuser.execute(locked)
            run = pool.submit(migrate, scratch, database, **HASTE)
            wait([run], timeout=5)
            ended_in_time = run.done()
        outcomes = run.result()
    assert ended_in_time
    return outcomes


def test_a_locked_table_stops_one_tenant_only(fresh_database: Database, scratch: Migrations) -> None:
    locked = sql.SQL("LOCK TABLE eur_schema.alembic_version IN ACCESS EXCLUSIVE MODE")
    outcomes = migrate_while(locked, scratch, fresh_database)
    assert_only_km_migrated(fresh_database, outcomes, "LockNotAvailable")


def test_a_locked_registry_row_stops_one_tenant_only(fresh_database: Database, scratch: Migrations) -> None:
    """As while another run migrates the same tenant: the lock timeout applies from the first lock on."""
    locked = sql.SQL("SELECT 1 FROM shared.tenants WHERE slug = 'eur' FOR NO KEY UPDATE")
    outcomes = migrate_while(locked, scratch, fresh_database)
    assert_only_km_migrated(fresh_database, outcomes, "LockNotAvailable")


SLOW_FOR_EUR = """
op.execute("DO $$BEGIN IF current_schema() = 'eur_schema' THEN PERFORM pg_sleep(1.5); END IF; END$$")
"""


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_backend_that_dies_stops_one_tenant_only(fresh_database: Database, repository: Path, attempts: int) -> None:
    """With another attempt not even that tenant fails: its worker opens a new connection."""
    write_revision(repository, History.TENANT, next_number(), STEPS + SLOW_FOR_EUR)
    superuser = fresh_database.as_superuser()
    options = {"attempts": attempts, "first_delay_seconds": 0.05, "jobs": 2}
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(migrate, migrations_in(repository), fresh_database, **options)
        query = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event = 'PgSleep'"
        )
        while not superuser.execute(query).fetchone():
            assert not run.done()
        outcomes = run.result()
    if attempts == 1:
        assert_only_km_migrated(fresh_database, outcomes, "AdminShutdown")
    else:
        assert outcomes["eur"] == Outcome("eur_schema", "eur", BEFORE, HEAD, attempts=2)
        assert_migrated(fresh_database, "eur")


def test_a_bug_in_a_revision_stops_one_tenant_only(fresh_database: Database, repository: Path) -> None:
    """Every exception of Python becomes that tenant's outcome."""
    body = (
        f"{STEPS}\nif op.get_bind().scalar(__import__('sqlalchemy').text('SELECT current_schema()')) == 'eur_schema':"
    )
    body += "\n    raise ZeroDivisionError('first\\nsecond')"
    write_revision(repository, History.TENANT, next_number(), body, runs_python=True)
    outcomes = migrate(migrations_in(repository), fresh_database)
    assert_only_km_migrated(fresh_database, outcomes, "ZeroDivisionError: first")


def test_a_tenant_whose_schema_is_gone_stops_nobody_and_nothing_is_made_elsewhere(
    fresh_database: Database, scratch: Migrations
) -> None:
    superuser = fresh_database.as_superuser()
    superuser.execute("ALTER SCHEMA eur_schema RENAME TO elsewhere")
    outcomes = migrate(scratch, fresh_database)
    assert outcomes["eur"].has_failed
    assert "eur_schema" in (outcomes["eur"].error or "")
    assert not outcomes["km"].has_failed
    assert_migrated(fresh_database, "km")
    assert not tables_in(fresh_database, "elsewhere") & PROBES
    superuser.execute("ALTER SCHEMA elsewhere RENAME TO eur_schema")
    assert_as_before(fresh_database, "eur")


def test_of_several_revisions_all_or_none_are_kept(fresh_database: Database, scratch: Migrations) -> None:
    """The first revision is valid; the second fails for one tenant, which then has neither."""
    write_revision(
        scratch.setup_cfg.parent, History.TENANT, next_number() + 1, 'op.execute("CREATE TABLE last (id uuid)")'
    )
    fresh_database.as_superuser().execute("CREATE TABLE eur_schema.last (id uuid)")
    outcomes = migrate(scratch, fresh_database)
    assert outcomes["eur"].after == BEFORE
    assert_as_before(fresh_database, "eur")
    assert outcomes["km"] == Outcome("km_schema", "km", BEFORE, f"{next_number() + 1:04d}")
