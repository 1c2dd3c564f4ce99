"""All schemas in one db transaction, for small fleets: every one of them, or none.

It keeps all locks of all tenants until its end, so PostgreSQL's table of locks ends it at some hundred tenants.
"""

from collections.abc import Iterator
from contextlib import suppress
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from tenant_schemas.migrations.history import (
    Migrations,
    Outcome,
    current_revision,
    first_line,
    run_steps,
    set_timeouts,
    sqlstate_of,
)
from tenant_schemas.migrations.replay import opening, registry_update_text
from tenant_schemas.migrations.runner import journal
from tenant_schemas.migrations.runner.plan import MigrateOptions, Plan, TenantMigration
from tenant_schemas.migrations.runner.worker import failed, skipped
from tenant_schemas.roles import send
from tenant_schemas.tenant import SHARED_SCHEMA

_OUT_OF_LOCKS = "53200"
_TOO_MANY = "These are too many tenants for one db transaction (max_locks_per_transaction): go without --atomic."


def migrate_atomically(
    engine: Engine, migrations: Migrations, options: MigrateOptions, plan: Plan
) -> Iterator[Outcome]:
    """Do the plan, and `shared` if that is wished; yields every outcome when all is committed, or nothing is."""
    run_id = journal.begin(engine, migrations.roles, plan) if plan.waves and journal.tables_exist(engine) else None
    atomic_run = _AtomicRun(migrations, options, run_id)
    try:
        with engine.begin() as connection:
            set_timeouts(connection)
            done = list(atomic_run.outcomes(connection, plan))
    except BaseException as error:
        if run_id:
            # Without a server it can't be written down; the next run finds out.
            with suppress(DBAPIError):
                status = "failed" if isinstance(error, Exception) else "stopped"
                journal.end(engine, migrations.roles, run_id, status, atomic_run.last_words(error))
        if not isinstance(error, Exception):
            raise
        yield from atomic_run.failures(plan, error)
        return
    if run_id:
        journal.end(engine, migrations.roles, run_id, "done")
    yield from done


class _AtomicRun:
    """The one db transaction, and where in it we are."""

    def __init__(self, migrations: Migrations, options: MigrateOptions, run_id: UUID | None) -> None:
        self._migrations = migrations
        self._options = options
        self._run_id = run_id
        self._at: TenantMigration | None = None

    def outcomes(self, connection: Connection, plan: Plan) -> Iterator[Outcome]:
        """Do all, one after another."""
        if self._options.moves_shared:
            before = current_revision(connection, SHARED_SCHEMA)
            after = self._migrations.upgrade_shared(connection, self._options.shared_to)
            yield Outcome(SHARED_SCHEMA, None, before, after)
        for work in plan.migrations:
            self._at = work
            yield self._bring(connection, work)

    def failures(self, plan: Plan, error: Exception) -> Iterator[Outcome]:
        """The one that failed, and all others, which are where they were because of it."""
        reason, sqlstate = _reason(error), sqlstate_of(error)
        if self._at is None:
            yield Outcome(SHARED_SCHEMA, None, None, None, reason, sqlstate)
        for work in plan.migrations:
            yield failed(work, reason, sqlstate) if work is self._at else skipped(work)

    def last_words(self, error: BaseException) -> str:
        """What the record is told of the one that failed."""
        if self._at is None or self._run_id is None or not isinstance(error, Exception):
            return ""
        return journal.failed_text(self._run_id, self._at, _reason(error), sqlstate_of(error), None)

    def _bring(self, connection: Connection, work: TenantMigration) -> Outcome:
        tenant, options = work.tenant, self._options
        timeouts = {"lock_timeout_ms": options.lock_timeout_ms, "statement_timeout_ms": options.statement_timeout_ms}
        send(connection, opening(tenant, self._migrations.roles, **timeouts))
        run_steps(connection, work.steps, tenant.schema_name)
        send(connection, registry_update_text(tenant, work.target))
        if self._run_id:
            send(connection, journal.done_text(self._run_id, work))
        return Outcome(tenant.schema_name, tenant.slug, tenant.revision, work.target)


def _reason(error: BaseException) -> str:
    return _TOO_MANY if sqlstate_of(error) == _OUT_OF_LOCKS else first_line(error)
