"""Each schema goes to its head alone; what fails is reported, stays as it was and stops nobody.

The histories here are those of the repository with scratch revisions after them.
"""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from psycopg import sql

from app.config import ROOT
from app.db import SharedModel, TenantModel
from app.ledger import models as _ledger  # noqa: F401  Its tables belong to the tenant's metadata.
from app.members import models as _members  # noqa: F401  And its to the shared one.
from app.tenancy import MIGRATIONS
from app.wallets import models as _wallets  # noqa: F401
from tenant_schemas.errors import TenantNotFound
from tenant_schemas.migrations import runner
from tenant_schemas.migrations.history import History, Migrations, Outcome, differences
from tenant_schemas.migrations.runner import MigrateOptions
from tenant_schemas.roles import close_database
from tenant_schemas.search_path import bind_migration
from tenant_schemas.tenant import TenantStatus
from tenant_schemas.testing.plugin import Database, make_tenant

pytestmark = pytest.mark.changes_roles

SCHEMAS = {"eur": "eur_schema", "km": "km_schema"}

# Two steps, so that the first can be seen to be undone, and a note of how the second was run.
STEPS = """
op.execute("CREATE TABLE first_step (id uuid PRIMARY KEY)")
op.execute('''CREATE TABLE probe AS SELECT current_user::text AS who, current_schemas(true)::text AS path,
    current_setting('search_path') AS search_path, current_setting('lock_timeout') AS lock_timeout,
    current_setting('statement_timeout') AS statement_timeout,
    current_setting('tenant_schemas.tenant_role', true) AS tenant_role''')
"""
PROBES = {"first_step", "probe"}


def write_revision(repository: Path, history: History, number: int, body: str, **said: object) -> None:
    """Add a revision whose upgrade is `body`, and what else its file says."""
    folder = repository / "migrations" / ("shared" if history is History.SHARED else "tenant")
    indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
    said_lines = "".join(f"{name} = {value!r}\n" for name, value in said.items())
    (folder / f"{number:04d}_probe.py").write_text(
        f"from alembic import op\n\nrevision = '{number:04d}'\ndown_revision = '{number - 1:04d}'\n"
        f"{said_lines}\n\n"
        f"def upgrade() -> None:\n{indented}\n",
        encoding="utf-8",
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the histories, to add to."""
    shutil.copytree(ROOT / "migrations", tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    return tmp_path


@pytest.fixture
def scratch(repository: Path) -> Migrations:
    """The repository's histories, and one more revision for tenants."""
    write_revision(repository, History.TENANT, next_number(), STEPS)
    return migrations_in(repository)


def migrations_in(repository: Path) -> Migrations:
    return Migrations(repository / "setup.cfg", MIGRATIONS.roles)


def next_number(history: History = History.TENANT) -> int:
    return int(MIGRATIONS.head(history)) + 1


HEAD = f"{next_number():04d}"
BEFORE = f"{next_number() - 1:04d}"


def migrate(scratch: Migrations, database: Database, *slugs: str, **options: Any) -> dict[str | None, Outcome]:
    """What became of the tenants."""
    outcomes = list(runner.migrate(database.admin_engine(), scratch, MigrateOptions(slugs=slugs, **options)))
    assert outcomes.pop(0).slug is None
    by_slug = {outcome.slug: outcome for outcome in outcomes}
    assert len(by_slug) == len(outcomes)
    return by_slug


def tables_in(database: Database, schema_name: str) -> set[str]:
    with psycopg.connect(database.url()) as superuser:
        rows = superuser.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (schema_name,))
        return {name for (name,) in rows}


def state_of(database: Database, slug: str) -> tuple[set[str], str, str]:
    """Which of the scratch revision's tables the tenant has, and where it is, in Alembic's and the registry's words."""
    query = sql.SQL(
        "SELECT ARRAY(SELECT tablename::text FROM pg_tables WHERE schemaname = t.schema_name),"
        " (SELECT version_num FROM {}), t.revision FROM shared.tenants t WHERE t.slug = %s"
    ).format(sql.Identifier(SCHEMAS[slug], "alembic_version"))
    with psycopg.connect(database.url()) as superuser:
        tables, by_alembic, by_registry = superuser.execute(query, (slug,)).fetchall()[0]
    return set(tables) & PROBES, by_alembic, by_registry


def assert_migrated(database: Database, slug: str) -> None:
    assert state_of(database, slug) == (PROBES, HEAD, HEAD)


def assert_as_before(database: Database, slug: str) -> None:
    """Not even the first step is left, and both records of the revision agree."""
    tables, *revisions = state_of(database, slug)
    assert "first_step" not in tables
    assert revisions == [BEFORE, BEFORE]


# What a good run does.


def test_every_tenant_goes_to_the_head_and_says_so_as_it_happens(fresh_database: Database, scratch: Migrations) -> None:
    """Also tenants that are not served now, else they could never come back. A second run has nothing to do."""
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
    """Exactly one schema in the path: with two Alembic could find the other tenant's version table."""
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
    """A name that nobody has stops the run before it begins."""
    with pytest.raises(TenantNotFound, match="nobody"):
        migrate(scratch, fresh_database, "km", "nobody")
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


# What fails stays as it was and stops nobody.


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
    """And when it is out of the way, the same run brings the tenant to the head."""
    fresh_database.as_superuser().execute("CREATE TABLE eur_schema.probe (id uuid)")
    assert_only_km_migrated(fresh_database, migrate(scratch, fresh_database), '"probe" already exists')
    fresh_database.as_superuser().execute("DROP TABLE eur_schema.probe")
    assert migrate(scratch, fresh_database)["eur"] == Outcome("eur_schema", "eur", BEFORE, HEAD)


HASTE = {"lock_timeout_ms": 150, "attempts": 2, "first_delay_seconds": 0.05}


def migrate_while(locked: sql.SQL, scratch: Migrations, database: Database) -> dict[str | None, Outcome]:
    """Migrate while another transaction holds a lock; it lets go after 5 s, so that waiting for ever is a failure."""
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
    """As while another run migrates the same tenant: the lock time-out counts from the first lock on."""
    locked = sql.SQL("SELECT 1 FROM shared.tenants WHERE slug = 'eur' FOR NO KEY UPDATE")
    outcomes = migrate_while(locked, scratch, fresh_database)
    assert_only_km_migrated(fresh_database, outcomes, "LockNotAvailable")


SLOW_FOR_EUR = """
op.execute("DO $$BEGIN IF current_schema() = 'eur_schema' THEN PERFORM pg_sleep(1.5); END IF; END$$")
"""


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_backend_that_dies_stops_one_tenant_only(fresh_database: Database, repository: Path, attempts: int) -> None:
    """And with another attempt not even that: its worker takes a new connection."""
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
    """Whatever Python raises is that tenant's outcome."""
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
    """The first one is good; the second one fails for one tenant, which is then at neither."""
    write_revision(
        scratch.setup_cfg.parent, History.TENANT, next_number() + 1, 'op.execute("CREATE TABLE last (id uuid)")'
    )
    fresh_database.as_superuser().execute("CREATE TABLE eur_schema.last (id uuid)")
    outcomes = migrate(scratch, fresh_database)
    assert outcomes["eur"].after == BEFORE
    assert_as_before(fresh_database, "eur")
    assert outcomes["km"] == Outcome("km_schema", "km", BEFORE, f"{next_number() + 1:04d}")


# The shared history.


@pytest.fixture
def empty_database(template: Database) -> Iterator[Database]:
    """A database with the roles' rights on it and nothing in it."""
    name = f"empty_{uuid4().hex[:8]}"
    empty = replace(template, name=name, _open=[])
    with psycopg.connect(template.server_url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            engine = sa.create_engine(
                sa.make_url(empty.url()).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool
            )
            with engine.begin() as connection:
                close_database(connection, empty.roles)
            yield empty
            empty.close()
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_shared_is_made_and_migrated_from_nothing_and_again_for_nothing(empty_database: Database) -> None:
    head = MIGRATIONS.head(History.SHARED)
    engine = empty_database.admin_engine()
    assert MIGRATIONS.migrate_shared(engine) == Outcome("shared", None, None, head)
    assert MIGRATIONS.migrate_shared(engine) == Outcome("shared", None, head, head)
    assert tables_in(empty_database, "shared") >= {"alembic_version", "memberships", "tenants", "users"}
    assert tables_in(empty_database, "public") == set()


def test_a_shared_migration_that_fails_leaves_nothing(empty_database: Database, repository: Path) -> None:
    """Not even the schema, if it was made for it."""
    write_revision(repository, History.SHARED, next_number(History.SHARED), 'op.execute("SELECT 1 / 0")')
    outcome = migrations_in(repository).migrate_shared(empty_database.admin_engine())
    assert (outcome.before, outcome.after) == (None, None)
    assert "DivisionByZero" in (outcome.error or "")
    with empty_database.as_superuser() as superuser:
        assert superuser.execute("SELECT to_regnamespace('shared')").fetchone() == (None,)


def test_a_shared_migration_touches_no_tenant(fresh_database: Database, repository: Path) -> None:
    write_revision(repository, History.SHARED, next_number(History.SHARED), STEPS)
    outcome = migrations_in(repository).migrate_shared(fresh_database.admin_engine())
    assert outcome.after == f"{next_number(History.SHARED):04d}"
    assert tables_in(fresh_database, "shared") >= PROBES
    for slug in SCHEMAS:
        assert_as_before(fresh_database, slug)


# Histories.


def test_each_history_is_one_line_with_a_numbered_head() -> None:
    for history in History:
        assert MIGRATIONS.head(history).isdecimal()
        assert len(MIGRATIONS.head(history)) == 4


def test_a_history_without_revisions_is_an_error_that_says_which(repository: Path) -> None:
    for file in (repository / "migrations" / "tenant").glob("0*.py"):
        file.unlink()
    with pytest.raises(LookupError, match=r"alembic.*no revisions"):
        migrations_in(repository).head(History.TENANT)


def test_a_history_of_two_lines_is_refused(scratch: Migrations) -> None:
    fork = scratch.setup_cfg.parent / "migrations" / "tenant" / "0000_fork.py"
    fork.write_text(f"revision = 'fork'\ndown_revision = '{BEFORE}'\n\n\ndef upgrade() -> None:\n    pass\n")
    with pytest.raises(CommandError, match="multiple heads"):
        scratch.head(History.TENANT)


@pytest.mark.parametrize("history", list(History))
def test_alembic_typed_by_hand_is_refused_and_says_what_to_type(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    config = Config("setup.cfg", ini_section=history)
    for typed in (
        lambda: command.upgrade(config, "head"),
        lambda: command.upgrade(config, "head", sql=True),
        lambda: command.current(config),
        lambda: command.check(config),
        lambda: command.stamp(config, "head"),
    ):
        with pytest.raises(CommandError, match=r"scripts\.migrate"):
            typed()


# Models and schemas.


def differing(database: Database, metadata: sa.MetaData, schema_name: str) -> list[Any]:
    with database.admin_engine().begin() as connection:
        return differences(connection, metadata, schema_name)


MODELS = pytest.mark.parametrize(
    ("metadata", "schema_name"),
    [(SharedModel.metadata, "shared"), (TenantModel.metadata, "eur_schema"), (TenantModel.metadata, "km_schema")],
    ids=["shared", "eur", "km"],
)


@MODELS
def test_the_models_say_what_the_migrations_made(database: Database, metadata: sa.MetaData, schema_name: str) -> None:
    assert metadata.tables
    assert differing(database, metadata, schema_name) == []


def test_a_difference_made_by_hand_is_seen_in_its_schema_only(fresh_database: Database) -> None:
    """A column, a table, a type. Each is undone before the next."""
    superuser = fresh_database.as_superuser()
    for change, undoing in (
        ("ALTER TABLE eur_schema.wallets ADD COLUMN by_hand int", "ALTER TABLE eur_schema.wallets DROP COLUMN by_hand"),
        ("CREATE TABLE eur_schema.by_hand (id uuid)", "DROP TABLE eur_schema.by_hand"),
        (
            "ALTER TABLE eur_schema.order_items ALTER COLUMN name TYPE varchar(99)",
            "ALTER TABLE eur_schema.order_items ALTER COLUMN name TYPE text",
        ),
    ):
        superuser.execute(change)  # type: ignore[arg-type]
        assert differing(fresh_database, TenantModel.metadata, "eur_schema"), change
        superuser.execute(undoing)  # type: ignore[arg-type]
    assert differing(fresh_database, TenantModel.metadata, "eur_schema") == []
    superuser.execute("ALTER TABLE km_schema.wallets ADD COLUMN by_hand int")
    superuser.execute("ALTER TABLE shared.users ADD COLUMN by_hand int")
    assert differing(fresh_database, TenantModel.metadata, "eur_schema") == []
    assert differing(fresh_database, TenantModel.metadata, "km_schema")
    assert differing(fresh_database, SharedModel.metadata, "shared")


def test_the_next_revision_is_drafted_from_the_models_and_can_be_run(
    fresh_database: Database, repository: Path, request: pytest.FixtureRequest
) -> None:
    """Numbered, in the right folder, and about nothing but what is new."""
    drafting, metadata = migrations_in(repository), TenantModel.metadata
    table = sa.Table("drafted", metadata, sa.Column("id", sa.Uuid, primary_key=True), sa.Column("note", sa.Text))
    request.addfinalizer(lambda: metadata.remove(table))
    with fresh_database.admin_engine().begin() as connection:
        bind_migration(connection, "eur_schema")
        (path,) = drafting.draft(connection, History.TENANT, metadata, "Add drafted")
    assert path == repository / "migrations" / "tenant" / f"{HEAD}_add_drafted.py"
    text = path.read_text()
    assert text.count("op.create_table(") == 1
    assert "eur_schema" not in text
    assert "drop" not in text.partition("def downgrade")[0]
    outcomes = migrate(drafting, fresh_database)
    assert {outcome.after for outcome in outcomes.values()} == {HEAD}
    for schema_name in SCHEMAS.values():
        assert "drafted" in tables_in(fresh_database, schema_name)
        assert differing(fresh_database, metadata, schema_name) == []
