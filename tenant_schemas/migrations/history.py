"""The histories, and what takes one schema along them within an open db transaction.

Every schema's db transaction is its own: the one of `shared` here, those of tenants in
`tenant_schemas.migrations.runner`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from psycopg import sql
from sqlalchemy import Connection, Engine

from tenant_schemas.errors import RevisionRefused
from tenant_schemas.migrations.render import History, Line, Step, alembic_config, operating, read_history
from tenant_schemas.migrations.replay import VERSION_TABLE, checks_text, steps_text, version_table, version_update_text
from tenant_schemas.roles import TENANT_ROLE_SETTING, ServiceRoles, become_owner, send
from tenant_schemas.search_path import bind_migration, migration_message
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant

__all__ = [
    "VERSION_TABLE",
    "History",
    "Migrations",
    "Outcome",
    "Step",
    "current_revision",
    "differences",
    "set_timeouts",
]

LOCK_TIMEOUT_MS = 5_000
STATEMENT_TIMEOUT_MS = 600_000
_SAID_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one schema: at `before`, now at `after`; with an `error` it is still at `before`."""

    schema_name: str
    slug: str | None
    before: str | None
    after: str | None
    error: str | None = None
    sqlstate: str | None = None
    attempts: int = 1
    blocked_by: str | None = None
    was_skipped: bool = False

    @property
    def has_failed(self) -> bool:
        return self.error is not None


@dataclass(frozen=True, slots=True)
class Migrations:
    """The histories that a setup.cfg names, and the roles in whose name they run."""

    setup_cfg: Path
    roles: ServiceRoles

    def head(self, history: History) -> str:
        head = self.history(history).head
        if head is None:
            raise LookupError(f"[{history}] in {self.setup_cfg} has no revisions.")
        return head

    def history(self, history: History) -> Line:
        return read_history(self.setup_cfg, history)

    def steps(self, history: History, after: str | None, to: str | None = None) -> tuple[Step, ...]:
        """The way from a revision to another, by default to the head, as SQL. Raises RevisionRefused."""
        return self.history(history).steps(after, to or self.head(history))

    def migrate_shared(self, engine: Engine, to: str | None = None, *, lock_timeout_ms: int | None = None) -> Outcome:
        """Make `shared` if it is missing and bring it to a revision, by default its head, in a db transaction."""
        before = None
        try:
            with engine.begin() as connection:
                set_timeouts(connection, lock_timeout_ms)
                before = current_revision(connection, SHARED_SCHEMA)
                after = self.upgrade_shared(connection, to)
        except Exception as error:  # noqa: BLE001  Whatever it is, it is this schema's outcome.
            return Outcome(SHARED_SCHEMA, None, before, before, first_line(error), sqlstate_of(error))
        return Outcome(SHARED_SCHEMA, None, before, after)

    def upgrade_shared(self, connection: Connection, to: str | None = None) -> str:
        """The same within the open db transaction, which then acts as the owner; returns the revision."""
        become_owner(connection, self.roles)
        connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {SHARED_SCHEMA}")
        return self.upgrade(connection, History.SHARED, SHARED_SCHEMA, to)

    def upgrade_tenant(self, connection: Connection, tenant: Tenant, to: str | None = None) -> str:
        """Bring one tenant's schema from where it is to a revision, by default the head, within the open db
        transaction, as the owner; returns the revision. The registry is the caller's to write.
        """
        connection.exec_driver_sql("SELECT set_config(%s, %s, true)", (TENANT_ROLE_SETTING, tenant.role_name))
        return self.upgrade(connection, History.TENANT, tenant.schema_name, to)

    def upgrade(self, connection: Connection, history: History, schema_name: str, to: str | None = None) -> str:
        """Run a history's steps in one schema, within the open db transaction, as the owner; returns the revision."""
        bind_migration(connection, schema_name)
        steps = self.steps(history, current_revision(connection, schema_name), to)
        run_steps(connection, steps, schema_name)
        return (steps[-1].after if steps else None) or to or self.head(history)

    def draft(self, connection: Connection, history: History, metadata: sa.MetaData, message: str) -> list[Path]:
        """Write the next numbered revision file: what takes the bound schema to the models. Returns its path."""
        schema_name = connection.exec_driver_sql("SELECT current_schema()").scalar_one()
        config = alembic_config(self.setup_cfg, history)
        config.attributes |= {"connection": connection, "schema_name": schema_name, "metadata": metadata}
        number = f"{int(self.head(history)) + 1:04d}"
        made = command.revision(config, message, autogenerate=True, rev_id=number)
        return [Path(script.path) for script in (made if isinstance(made, list) else [made]) if script]


def run_steps(connection: Connection, steps: Sequence[Step], schema_name: str) -> None:
    """Take the bound schema these steps and note where it then is. Raises psycopg's errors as they are, among them
    that a check finds something (SQLSTATE TS002), and RevisionRefused for Python that ends the db transaction.
    """
    for python, together in groupby(steps, key=lambda step: step.python):
        if python is None:
            send(connection, steps_text(list(together), schema_name))
            continue
        for step in together:
            send(connection, migration_message(schema_name) + version_table(step, schema_name))
            _run_python(connection, step.revision, python, schema_name)
            send(connection, version_update_text(step, schema_name) + checks_text(step))


def _run_python(connection: Connection, revision: str, python: Callable[[], None], schema_name: str) -> None:
    """Let nothing of it be kept or lost before the rest: neither by SQLAlchemy's commit and rollback nor by SQL."""

    def refuse(_: Connection) -> None:
        raise RevisionRefused(f"Revision {revision} ends its db transaction, which is not its to end.")

    current = "SELECT pg_current_xact_id()::text"
    before = connection.exec_driver_sql(current).scalar_one()
    for end in ("commit", "rollback"):
        sa.event.listen(connection, end, refuse)
    try:
        with operating(_context(connection, schema_name)):
            python()
    finally:
        for end in ("commit", "rollback"):
            sa.event.remove(connection, end, refuse)
    if connection.exec_driver_sql(current).scalar_one() != before:
        refuse(connection)


def set_timeouts(connection: Connection, lock_timeout_ms: int | None = None) -> None:
    """Wait for no lock for long, until the db transaction ends, so that whoever queues behind us goes on soon. The
    first statement of everything that changes schemas.
    """
    waits_ms = LOCK_TIMEOUT_MS if lock_timeout_ms is None else lock_timeout_ms
    send(connection, f"SET LOCAL lock_timeout TO {waits_ms}; SET LOCAL statement_timeout TO {STATEMENT_TIMEOUT_MS}")


def current_revision(connection: Connection, schema_name: str) -> str | None:
    """The revision a schema is at, None before its first. A schema of ours has one line of history, so one row."""
    table = sql.Identifier(schema_name, VERSION_TABLE).as_string()
    if connection.exec_driver_sql("SELECT to_regclass(%s)", (table,)).scalar() is None:
        return None
    return connection.exec_driver_sql(f"SELECT version_num FROM {table}").scalar_one_or_none()  # noqa: S608


def differences(connection: Connection, metadata: sa.MetaData, schema_name: str) -> list[Any]:
    """What the models say that the schema does not, and the reverse, in Alembic's words. Empty is good."""
    bind_migration(connection, schema_name)
    return list(compare_metadata(_context(connection, schema_name), metadata))


def comparison_options(schema_name: str) -> dict[str, Any]:
    """How Alembic looks at one schema only, and not at the table in which it keeps its own revision."""

    def is_ours(name: str | None, kind: str, _: object) -> bool:
        if kind == "schema":
            return name == (schema_name if schema_name == SHARED_SCHEMA else None)
        return not (kind == "table" and name == VERSION_TABLE)

    return {
        "version_table": VERSION_TABLE,
        "version_table_schema": schema_name,
        "include_schemas": True,
        "include_name": is_ours,
        "compare_type": True,
        "compare_server_default": False,
    }


def first_line(error: BaseException) -> str:
    """What went wrong, short enough for a record and with nothing that PostgreSQL could not keep."""
    said = str(error).replace("\0", " ").splitlines()
    return f"{type(error).__name__}: {said[0] if said else ''}"[:_SAID_CHARACTERS]


def sqlstate_of(error: BaseException) -> str | None:
    """PostgreSQL's own code of what went wrong, also where SQLAlchemy has wrapped it."""
    original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return original.sqlstate if isinstance(original, psycopg.Error) else None


def _context(connection: Connection, schema_name: str) -> MigrationContext:
    return MigrationContext.configure(connection, opts=comparison_options(schema_name))
