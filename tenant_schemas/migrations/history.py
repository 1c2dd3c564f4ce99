"""The two migration histories, and the upgrade of one schema within an open db transaction.

Every schema is migrated in its own db transaction: `shared` by `migrate_shared`, tenants by
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
from tenant_schemas.migrations.concurrent_index import autocommit, run_concurrently
from tenant_schemas.migrations.render import (
    History,
    LinearHistory,
    Step,
    alembic_config,
    alembic_operations,
    legs_of,
    read_history,
)
from tenant_schemas.migrations.replay import (
    VERSION_TABLE,
    checks_text,
    parts_of,
    send_parts,
    version_table_text,
    version_update_text,
)
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
_ERROR_CHARACTERS = 1_000
_STATEMENT_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a migration for one schema: its revisions `before` and `after`. With an `error` both are equal. A
    `note` says why a schema without an error was not migrated to the head.
    """

    schema_name: str
    slug: str | None
    before: str | None
    after: str | None
    error: str | None = None
    sqlstate: str | None = None
    attempts: int = 1
    blocked_by: str | None = None
    was_skipped: bool = False
    note: str | None = None

    @property
    def has_failed(self) -> bool:
        return self.error is not None


@dataclass(frozen=True, slots=True)
class Migrations:
    """The histories that a setup.cfg names, and the roles that run them."""

    setup_cfg: Path
    roles: ServiceRoles

    def head(self, history: History) -> str:
        head = self.history(history).head
        if head is None:
            raise LookupError(f"[{history}] in {self.setup_cfg} has no revisions.")
        return head

    def history(self, history: History) -> LinearHistory:
        return read_history(self.setup_cfg, history)

    def steps(self, history: History, after: str | None, to: str | None = None) -> tuple[Step, ...]:
        """The steps from one revision to another, by default to the head, as SQL. Raises RevisionRefused."""
        return self.history(history).steps(after, to or self.head(history))

    def migrate_shared(
        self,
        engine: Engine,
        to: str | None = None,
        *,
        lock_timeout_ms: int = LOCK_TIMEOUT_MS,
        statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
    ) -> Outcome:
        """Create `shared` if it is missing and migrate it to a revision, by default its head, in its own db
        transaction, or in several if it gets a concurrent index. A `shared` that is newer than this code is left. An
        error is returned in the outcome.
        """
        before = at = None
        timeouts = {"lock_timeout_ms": lock_timeout_ms, "statement_timeout_ms": statement_timeout_ms}
        try:
            with engine.begin() as connection:
                before = at = current_revision(connection, SHARED_SCHEMA)
            if to is None and (note := self.newer_note(History.SHARED, before)):
                return Outcome(SHARED_SCHEMA, None, before, before, note=note)
            for leg in legs_of(self.steps(History.SHARED, before, to)):
                at = self._migrate_shared_by(engine, leg, **timeouts)
        except Exception as error:  # noqa: BLE001  Any error is this schema's outcome.
            return Outcome(SHARED_SCHEMA, None, at, at, first_line(error), sqlstate_of(error))
        return Outcome(SHARED_SCHEMA, None, before, at)

    def _migrate_shared_by(self, engine: Engine, leg: tuple[Step, ...], **timeouts: int) -> str | None:
        """Run steps of `legs_of` and commit them; returns the revision."""
        last = leg[-1]
        if last.concurrent and len(leg) == 1:
            with autocommit(engine) as connection:
                run_concurrently(connection, last.revision, last.concurrent, SHARED_SCHEMA, self.roles, **timeouts)
        with engine.begin() as connection:
            set_timeouts(connection, **timeouts)
            if last.concurrent and len(leg) == 1:
                become_owner(connection, self.roles)
                send(connection, version_update_text(last, SHARED_SCHEMA))
            else:
                self.upgrade_shared(connection, last.after)
        return last.after

    def newer_note(self, history: History, revision: str | None) -> str | None:
        """Why a schema is left as it is, if its revision is newer than this code: another release has migrated it."""
        if not self.history(history).is_older_than(revision):
            return None
        return f"Revision {revision} is newer than this code, whose history ends at {self.head(history)}: it was left."

    def upgrade_shared(self, connection: Connection, to: str | None = None) -> str:
        """Create `shared` if it is missing and migrate it, within the open db transaction, which then acts as the
        owner; returns the revision.
        """
        become_owner(connection, self.roles)
        connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {SHARED_SCHEMA}")
        return self.upgrade(connection, History.SHARED, SHARED_SCHEMA, to)

    def upgrade_tenant(self, connection: Connection, tenant: Tenant, to: str | None = None) -> str:
        """Migrate one tenant's schema to a revision, by default the head, within the owner's open db transaction;
        returns the revision. The caller writes the registry.
        """
        connection.exec_driver_sql("SELECT set_config(%s, %s, true)", (TENANT_ROLE_SETTING, tenant.role_name))
        return self.upgrade(connection, History.TENANT, tenant.schema_name, to)

    def upgrade(self, connection: Connection, history: History, schema_name: str, to: str | None = None) -> str:
        """Run a history's steps in one schema, within the owner's open db transaction; returns the revision."""
        bind_migration(connection, schema_name)
        steps = self.steps(history, current_revision(connection, schema_name), to)
        run_steps(connection, steps, schema_name)
        return (steps[-1].after if steps else None) or to or self.head(history)

    def draft(self, connection: Connection, history: History, metadata: sa.MetaData, message: str) -> list[Path]:
        """Write the next numbered revision file, with the changes from the bound schema to the models. Returns its
        path.
        """
        schema_name = connection.exec_driver_sql("SELECT current_schema()").scalar_one()
        config = alembic_config(self.setup_cfg, history)
        config.attributes |= {"connection": connection, "schema_name": schema_name, "metadata": metadata}
        number = f"{int(self.head(history)) + 1:04d}"
        made = command.revision(config, message, autogenerate=True, rev_id=number)
        return [Path(script.path) for script in (made if isinstance(made, list) else [made]) if script]


def run_steps(connection: Connection, steps: Sequence[Step], schema_name: str) -> None:
    """Run the steps in the bound schema and write its revision into the version table. Raises psycopg's errors
    unchanged (SQLSTATE TS002 if a check finds rows), and RevisionRefused if a revision's Python ends the db
    transaction.
    """
    for python, together in groupby(steps, key=lambda step: step.python):
        if python is None:
            send_parts(connection, parts_of(list(together), schema_name))
            continue
        for step in together:
            send(connection, migration_message(schema_name) + version_table_text(step, schema_name))
            _run_python(connection, step.revision, python, schema_name)
            send(connection, version_update_text(step, schema_name) + checks_text(step))


def _run_python(connection: Connection, revision: str, python: Callable[[], None], schema_name: str) -> None:
    """Run a revision's Python. Raises RevisionRefused if it commits or rolls back, by SQLAlchemy or by SQL."""

    def refuse(_: Connection) -> None:
        raise RevisionRefused(
            f"Revision {revision} commits or rolls back its db transaction: remove that, the migrator commits."
        )

    current = "SELECT pg_current_xact_id()::text"
    before = connection.exec_driver_sql(current).scalar_one()
    for end in ("commit", "rollback"):
        sa.event.listen(connection, end, refuse)
    try:
        with alembic_operations(_context(connection, schema_name)):
            python()
    except Exception as error:
        statement = " ".join((getattr(error, "statement", None) or "").split())[:_STATEMENT_CHARACTERS]
        error.add_note(f"Revision {revision}: {statement or 'its Python'}")
        raise
    finally:
        for end in ("commit", "rollback"):
            sa.event.remove(connection, end, refuse)
    if connection.exec_driver_sql(current).scalar_one() != before:
        refuse(connection)


def set_timeouts(
    connection: Connection, lock_timeout_ms: int | None = None, statement_timeout_ms: int = STATEMENT_TIMEOUT_MS
) -> None:
    """Set the lock and statement timeouts until the db transaction ends. Call this first in every db transaction that
    changes schemas: sessions that queue behind its lock request then wait only briefly.
    """
    timeout_ms = LOCK_TIMEOUT_MS if lock_timeout_ms is None else lock_timeout_ms
    send(connection, f"SET LOCAL lock_timeout TO {timeout_ms}; SET LOCAL statement_timeout TO {statement_timeout_ms}")


def current_revision(connection: Connection, schema_name: str) -> str | None:
    """The revision in a schema's version table, None before its first. A linear history has one row there."""
    table = sql.Identifier(schema_name, VERSION_TABLE).as_string()
    if connection.exec_driver_sql("SELECT to_regclass(%s)", (table,)).scalar() is None:
        return None
    return connection.exec_driver_sql(f"SELECT version_num FROM {table}").scalar_one_or_none()  # noqa: S608


def differences(connection: Connection, metadata: sa.MetaData, schema_name: str) -> list[Any]:
    """The differences between the models and a schema, as Alembic's operations. Empty if they agree."""
    bind_migration(connection, schema_name)
    return list(compare_metadata(_context(connection, schema_name), metadata))


def comparison_options(schema_name: str) -> dict[str, Any]:
    """Options that make Alembic compare one schema only, without its version table."""

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
    """Type and first line of an error and its notes, shortened, and without NUL, which PostgreSQL can't store."""
    lines = str(error).splitlines()
    notes = getattr(error, "__notes__", ())
    text = " | ".join([f"{type(error).__name__}: {lines[0] if lines else ''}", *notes])
    return text.replace("\0", " ")[:_ERROR_CHARACTERS]


def sqlstate_of(error: BaseException) -> str | None:
    """The SQLSTATE of an error, also if SQLAlchemy has wrapped it; None for other errors."""
    original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return original.sqlstate if isinstance(original, psycopg.Error) else None


def _context(connection: Connection, schema_name: str) -> MigrationContext:
    return MigrationContext.configure(connection, opts=comparison_options(schema_name))
