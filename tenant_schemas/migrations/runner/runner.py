"""A run of the migrator: takes the migrator lock, migrates `shared` and then the tenants wave by wave, and records it.

After any end (an error, Ctrl-C, kill -9, a restart of PostgreSQL) each tenant is at its old revision or completely at
the new one, and the same call continues from there.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import count
from queue import SimpleQueue
from time import sleep
from uuid import UUID

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from tenant_schemas.errors import MigrationError
from tenant_schemas.migrations.history import History, Migrations, Outcome, first_line, set_timeouts
from tenant_schemas.migrations.runner import journal
from tenant_schemas.migrations.runner.atomic import migrate_atomically
from tenant_schemas.migrations.runner.blockers import Blockers
from tenant_schemas.migrations.runner.migrator_lock import migrator_lock
from tenant_schemas.migrations.runner.plan import MigrateOptions, Plan, TenantMigration, make_plan
from tenant_schemas.migrations.runner.queue import Queue
from tenant_schemas.migrations.runner.worker import Job, Worker, skipped_outcome
from tenant_schemas.sessions import LOCK_NOT_AVAILABLE


def migrate(
    engine: Engine,
    migrations: Migrations,
    options: MigrateOptions | None = None,
    on_plan: Callable[[Plan], None] = lambda _: None,
) -> Generator[Outcome, None, None]:
    """Migrate `shared` and the tenants; yields each schema's outcome as it happens, `shared` first. If `shared` fails,
    no tenant is migrated.

    `engine` logs in as the migrator. Each tenant is locked and committed on its own, or all together with
    `options.is_atomic`. `on_plan` is called before the first tenant. Raises MigratorBusy, TenantNotFound and
    RevisionRefused before anything is changed, MigrationError if the run can't continue, and SQLAlchemy's errors if the
    server can't be reached.
    """
    options = options or MigrateOptions()
    migrations.history(History.TENANT)  # Raises for a history that is not linear before anything is changed.
    with ExitStack() as locks:
        is_prepared = locks.enter_context(migrator_lock(engine, migrations.roles, options.wait_seconds))
        if is_prepared and options.names_tenants:
            _plan(engine, migrations, options)  # Raises for an unknown slug before `shared` is migrated.
        if options.moves_shared and not (options.is_atomic and is_prepared):
            shared = _migrate_shared(engine, migrations, options)
            if not is_prepared and shared.sqlstate in _CREATED_CONCURRENTLY:
                is_prepared = locks.enter_context(migrator_lock(engine, migrations.roles, options.wait_seconds))
                shared = _migrate_shared(engine, migrations, options)
            yield shared
            if shared.has_failed:
                yield from _not_reached(engine, migrations, options) if is_prepared else ()
                return
        if not is_prepared:
            locks.enter_context(migrator_lock(engine, migrations.roles, options.wait_seconds))
        yield from _migrate_tenants(engine, migrations, options, on_plan, is_atomic=options.is_atomic and is_prepared)


def _not_reached(engine: Engine, migrations: Migrations, options: MigrateOptions) -> Iterator[Outcome]:
    """The outcomes of the tenants after a failure of `shared`. None if the registry can't be read either."""
    try:
        with engine.begin() as connection:
            set_timeouts(connection)
            plan = make_plan(connection, migrations, options)
    except (DBAPIError, MigrationError):
        return
    yield from map(skipped_outcome, plan.tenant_migrations)
    yield from plan.without_steps


def _migrate_tenants(
    engine: Engine, migrations: Migrations, options: MigrateOptions, on_plan: Callable[[Plan], None], *, is_atomic: bool
) -> Iterator[Outcome]:
    with engine.begin() as connection:
        set_timeouts(connection)
        plan = make_plan(connection, migrations, options)
        has_journal = journal.tables_exist(connection)
        # An atomic run migrates `shared` in its own db transaction, so it may make the functions there.
        can_record = (is_atomic and options.moves_shared) or journal.functions_exist(connection)
        if has_journal:
            journal.mark_abandoned(connection, migrations.roles)
    if plan.waves and not (has_journal and can_record):
        raise MigrationError("Schema shared is too old to record runs: run migrate without --to and --atomic first.")
    on_plan(plan)
    if is_atomic:
        yield from migrate_atomically(engine, migrations, options, plan)
    elif plan.waves:
        yield from _Run(engine, migrations, options, plan).outcomes()
    yield from plan.without_steps


def _plan(engine: Engine, migrations: Migrations, options: MigrateOptions) -> None:
    with engine.connect() as connection:
        set_timeouts(connection)
        make_plan(connection, migrations, options)


def _migrate_shared(engine: Engine, migrations: Migrations, options: MigrateOptions) -> Outcome:
    """Migrate `shared` with the lock timeout and the retries of a tenant: every tenant reads it, so no session may
    queue behind it for long.
    """
    for attempt in count(1):
        outcome = migrations.migrate_shared(engine, options.shared_to, **options.timeouts)
        if outcome.sqlstate != LOCK_NOT_AVAILABLE or attempt >= options.attempts:
            break
        sleep(options.first_delay_seconds * 2 ** (attempt - 1))
    return replace(outcome, attempts=attempt)


# unique_violation, duplicate_schema, duplicate_table: another migrator created `shared` at the same moment.
_CREATED_CONCURRENTLY = frozenset({"23505", "42P06", "42P07"})


class _Run:
    """Runs the waves of a plan and counts their failures."""

    def __init__(self, engine: Engine, migrations: Migrations, options: MigrateOptions, plan: Plan) -> None:
        self._engine = engine
        self._migrations = migrations
        self._options = options
        self._plan = plan
        self._failures = sum(outcome.has_failed for outcome in plan.without_steps)
        self._skipped = 0
        self._workers: list[Worker] = []

    def outcomes(self) -> Iterator[Outcome]:
        run_id = journal.begin(self._engine, self._migrations.roles, self._plan)
        try:
            for wave in self._plan.waves:
                if self._failures > self._options.budget:
                    yield from self._skip(wave)
                else:
                    yield from self._wave(run_id, wave)
        except BaseException:
            # If the server is down, the next run records that this one was killed.
            with suppress(DBAPIError):
                journal.end(self._engine, self._migrations.roles, run_id, "stopped")
            raise
        journal.end(
            self._engine, self._migrations.roles, run_id, "failed" if self._failures or self._skipped else "done"
        )

    def _skip(self, batch: Sequence[TenantMigration]) -> Iterator[Outcome]:
        self._skipped += len(batch)
        yield from map(skipped_outcome, batch)

    def _wave(self, run_id: UUID, wave: tuple[TenantMigration, ...]) -> Iterator[Outcome]:
        reports: SimpleQueue[Outcome | None] = SimpleQueue()
        jobs = min(self._options.jobs, len(wave))
        queue = Queue(wave, jobs, self._options.budget - self._failures)
        with Blockers(self._engine, self._options.lock_timeout_ms / 4000, self._pids) as blockers:
            job = Job(self._engine, self._migrations, self._options, run_id, queue, reports.put, blockers.of)
            self._workers = [Worker(job) for _ in range(jobs)]
            try:
                for worker in self._workers:
                    worker.start()
                yield from self._collect(reports, queue)
            finally:
                self._end_workers(queue)
        failures = [worker.failure for worker in self._workers if worker.failure]
        if len(failures) == len(self._workers):
            raise MigrationError(
                f"All workers of the run failed: run migrate again. The first error is {first_line(failures[0])}"
            ) from failures[0]

    def _collect(self, reports: "SimpleQueue[Outcome | None]", queue: Queue) -> Iterator[Outcome]:
        """Yield the workers' outcomes until all have ended, and then the tenants left in the queue as skipped."""
        running = len(self._workers)
        while running:
            outcome = reports.get()
            if outcome is None:
                running -= 1
                continue
            self._failures += outcome.has_failed and not outcome.was_skipped
            self._skipped += outcome.was_skipped
            yield outcome
        yield from self._skip(queue.close())

    def _end_workers(self, queue: Queue) -> None:
        """Wait for the workers. After an interruption they are still running: cancel their statements first."""
        queue.close()
        for worker in self._workers:
            with suppress(psycopg.Error):
                worker.cancel()
        for worker in self._workers:
            worker.join()

    def _pids(self) -> list[int]:
        return [pid for worker in self._workers if (pid := worker.pid) is not None]
