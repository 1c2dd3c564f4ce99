"""Migrates all schemas in one db transaction, for small fleets: either all of them or none.

It holds the locks of all tenants until it ends, so PostgreSQL's lock table limits it to some hundred tenants. Indexes
are made within it, also those of revisions that say `concurrently = True`.
"""

from collections.abc import Iterator
from contextlib import suppress
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from tenant_schemas.migrations.history import (
    History,
    Migrations,
    Outcome,
    current_revision,
    first_line,
    run_steps,
    set_timeouts,
    sqlstate_of,
)
from tenant_schemas.migrations.replay import done_text, opening_text
from tenant_schemas.migrations.runner import journal
from tenant_schemas.migrations.runner.plan import MigrateOptions, Plan, TenantMigration
from tenant_schemas.migrations.runner.worker import failed_outcome, skipped_outcome
from tenant_schemas.roles import send
from tenant_schemas.tenant import SHARED_SCHEMA

_OUT_OF_LOCKS = "53200"
_TOO_MANY = "Too many tenants for one db transaction (max_locks_per_transaction): run it without --atomic."


def migrate_atomically(
    engine: Engine, migrations: Migrations, options: MigrateOptions, plan: Plan
) -> Iterator[Outcome]:
    """Migrate `shared`, unless the options exclude it, and the plan's tenants in one db transaction; yields all
    outcomes after its commit, or after its rollback.
    """
    run_id = journal.begin(engine, migrations.roles, plan) if plan.waves else None
    atomic_run = _AtomicRun(migrations, options, run_id)
    try:
        with engine.begin() as connection:
            set_timeouts(connection, statement_timeout_ms=options.statement_timeout_ms)
            done = list(atomic_run.outcomes(connection, plan))
    except BaseException as error:
        if run_id:
            # If the server is down, the next run records that this one was killed.
            with suppress(DBAPIError):
                status = "failed" if isinstance(error, Exception) else "stopped"
                journal.end(engine, migrations.roles, run_id, status, atomic_run.failure_text(error))
        if not isinstance(error, Exception):
            raise
        yield from atomic_run.failures(plan, error)
        return
    if run_id:
        journal.end(engine, migrations.roles, run_id, "done")
    yield from done


class _AtomicRun:
    """The one db transaction of the run, and the tenant that is being migrated in it."""

    def __init__(self, migrations: Migrations, options: MigrateOptions, run_id: UUID | None) -> None:
        self._migrations = migrations
        self._options = options
        self._run_id = run_id
        self._current: TenantMigration | None = None

    def outcomes(self, connection: Connection, plan: Plan) -> Iterator[Outcome]:
        """Migrate all schemas, one after another."""
        if self._options.moves_shared:
            yield self._migrate_shared(connection)
        for migration in plan.tenant_migrations:
            self._current = migration
            yield self._migrate(connection, migration)

    def _migrate_shared(self, connection: Connection) -> Outcome:
        before, to = current_revision(connection, SHARED_SCHEMA), self._options.shared_to
        note = None if to else self._migrations.newer_note(History.SHARED, before)
        after = before if note else self._migrations.upgrade_shared(connection, to)
        return Outcome(SHARED_SCHEMA, None, before, after, note=note)

    def failures(self, plan: Plan, error: Exception) -> Iterator[Outcome]:
        """The outcomes after a rollback: the schema that failed, and all others as skipped."""
        reason, sqlstate = _reason(error), sqlstate_of(error)
        if self._current is None:
            yield Outcome(SHARED_SCHEMA, None, None, None, reason, sqlstate)
        for migration in plan.tenant_migrations:
            yield (
                failed_outcome(migration, reason, sqlstate)
                if migration is self._current
                else skipped_outcome(migration)
            )

    def failure_text(self, error: BaseException) -> str:
        """The SQL that records the failed tenant; empty if there is none to record."""
        if self._current is None or self._run_id is None or not isinstance(error, Exception):
            return ""
        return journal.failed_text(self._run_id, self._current, _reason(error), sqlstate_of(error), None)

    def _migrate(self, connection: Connection, migration: TenantMigration) -> Outcome:
        tenant, timeouts = migration.tenant, self._options.timeouts
        send(connection, opening_text(tenant, self._migrations.roles, target=tenant.revision, **timeouts))
        run_steps(connection, migration.steps, tenant.schema_name)
        send(connection, done_text(self._run_id, tenant, migration.target))
        return Outcome(tenant.schema_name, tenant.slug, tenant.revision, migration.target)


def _reason(error: BaseException) -> str:
    return _TOO_MANY if sqlstate_of(error) == _OUT_OF_LOCKS else first_line(error)
