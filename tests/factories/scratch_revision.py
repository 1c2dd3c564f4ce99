"""A scratch revision after the repository's histories, and its effect on tenants."""

from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from app.tenancy import MIGRATIONS
from tenant_schemas.migrations import runner
from tenant_schemas.migrations.history import History, Migrations, Outcome
from tenant_schemas.migrations.runner import MigrateOptions
from tenant_schemas.testing.plugin import Database

SCHEMAS = {"eur": "eur_schema", "km": "km_schema"}


# Two steps, so that a test can see that the first was undone, and a note of how the second was run.
STEPS = """
op.execute("CREATE TABLE first_step (id uuid PRIMARY KEY)")
op.execute('''CREATE TABLE probe AS SELECT current_user::text AS who, current_schemas(true)::text AS path,
    current_setting('search_path') AS search_path, current_setting('lock_timeout') AS lock_timeout,
    current_setting('statement_timeout') AS statement_timeout,
    current_setting('tenant_schemas.tenant_role', true) AS tenant_role''')
"""


PROBES = {"first_step", "probe"}


def write_revision(repository: Path, history: History, number: int, body: str, **said: object) -> None:
    """Add a revision with this upgrade body and these other assignments."""
    folder = repository / "migrations" / ("shared" if history is History.SHARED else "tenant")
    indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
    said_lines = "".join(f"{name} = {value!r}\n" for name, value in said.items())
    (folder / f"{number:04d}_probe.py").write_text(
        f"from alembic import op\n\nrevision = '{number:04d}'\ndown_revision = '{number - 1:04d}'\n"
        f"{said_lines}\n\n"
        f"def upgrade() -> None:\n{indented}\n",
        encoding="utf-8",
    )


def migrations_in(repository: Path) -> Migrations:
    return Migrations(repository / "setup.cfg", MIGRATIONS.roles)


def next_number(history: History = History.TENANT) -> int:
    return int(MIGRATIONS.head(history)) + 1


HEAD = f"{next_number():04d}"


BEFORE = f"{next_number() - 1:04d}"


def migrate(scratch: Migrations, database: Database, *slugs: str, **options: Any) -> dict[str | None, Outcome]:
    """The outcome of each tenant."""
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
    """The scratch revision's tables in the tenant, and its revision according to Alembic and to the registry."""
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
    """The first step was undone too, and both records of the revision agree."""
    tables, *revisions = state_of(database, slug)
    assert "first_step" not in tables
    assert revisions == [BEFORE, BEFORE]
