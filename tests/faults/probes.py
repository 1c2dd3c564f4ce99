"""Two revisions after the repository's histories, so that there is work to migrate, and their effect on tenants."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from tenant_schemas.migrations.history import Migrations
from tenant_schemas.testing.plugin import Database
from tests.factories.histories import HEAD as BEFORE
from tests.factories.histories import add_revision, copied_histories

AFTER: Final = f"{int(BEFORE) + 2:04d}"
# Each makes one object before a pause and one after it, so that a half migrated tenant is visible.
_PROBES: Final = ("probe", "second_probe")
_UPGRADE: Final = (
    "op.execute('CREATE TABLE {0} (id uuid PRIMARY KEY)'); op.execute('SELECT pg_sleep(0.02)');"
    " op.execute('ALTER TABLE wallets ADD COLUMN {0} text')"
)


def probing_histories(folder: Path, *, runs_python: bool) -> Migrations:
    """The last revision runs Python, or is SQL like the others."""
    histories = copied_histories(folder)
    add_revision(histories, _UPGRADE.format(_PROBES[0]))
    add_revision(histories, _UPGRADE.format(_PROBES[1]), runs_python=runs_python)
    return histories


@dataclass(frozen=True, slots=True)
class State:
    """A tenant's revision, in its own schema and in the registry, and the probes that it has."""

    by_schema: str
    by_registry: str
    probes: int

    @property
    def is_whole(self) -> bool:
        return self in {WHOLE_BEFORE, WHOLE_AFTER}


WHOLE_BEFORE, WHOLE_AFTER = State(BEFORE, BEFORE, 0), State(AFTER, AFTER, 2 * len(_PROBES))

# One statement, so that it has one snapshot during concurrent work.
_STATE = """
    SELECT (SELECT version_num FROM {schema}.alembic_version), t.revision,
        (SELECT count(*) FROM pg_catalog.pg_class c WHERE c.relnamespace = t.schema_name::regnamespace
            AND c.relname = ANY({probes}))
        + (SELECT count(*) FROM pg_catalog.pg_attribute a WHERE a.attrelid = (t.schema_name || '.wallets')::regclass
            AND a.attname = ANY({probes}))
    FROM shared.tenants t WHERE t.schema_name = {name}"""


def states(database: Database) -> dict[str, State]:
    """The state of every tenant, by slug."""
    with psycopg.connect(database.url(), autocommit=True) as superuser:
        found = superuser.execute("SELECT slug, schema_name FROM shared.tenants").fetchall()
        return {slug: _state(superuser, schema_name) for slug, schema_name in found}


def _state(superuser: psycopg.Connection, schema_name: str) -> State:
    names = {"schema": sql.Identifier(schema_name), "name": sql.Literal(schema_name)}
    query = sql.SQL(_STATE).format(probes=sql.Literal(list(_PROBES)), **names)
    row = superuser.execute(query).fetchone()
    assert row
    return State(*row)
