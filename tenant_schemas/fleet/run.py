"""A run: the lock, `shared` first, then the tenants wave by wave, and the record of all of it.

However it ends (an error, Ctrl-C, kill -9, PostgreSQL restarted), each tenant is at its old revision or at the new one,
whole, and the same call goes on where this one stopped.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from tenant_schemas.errors import MigrationError
from tenant_schemas.fleet import record
from tenant_schemas.fleet.blockers import Blockers
from tenant_schemas.fleet.lock import migrators_lock
from tenant_schemas.fleet.plan import Plan, Wishes, Work, make_plan
from tenant_schemas.fleet.queue import Queue
from tenant_schemas.fleet.together import migrate_together
from tenant_schemas.fleet.worker import Job, Worker, skipped
from tenant_schemas.migrations import VERSION_TABLE, Migrations, Outcome, first_line
from tenant_schemas.tenant import SHARED_SCHEMA


def migrate(
    engine: Engine,
    migrations: Migrations,
    wishes: Wishes | None = None,
    on_plan: Callable[[Plan], None] = lambda _: None,
) -> Generator[Outcome, None, None]:
    """Take `shared` and the tenants along their histories; yields the outcome of each schema as it happens, that of
    `shared` first. If that failed, no tenant is touched.

    `engine` logs in as the migrator. Each tenant is locked and committed by itself, or all together with
    `wishes.is_atomic`. `on_plan` is called before the first tenant. Raises MigratorBusy, TenantNotFound and
    RevisionRefused before anything is done, and MigrationError if the run itself can't go on.
    """
    wishes = wishes or Wishes()
    with ExitStack() as held:
        is_prepared = _is_prepared(engine)
        if is_prepared:
            held.enter_context(migrators_lock(engine, migrations.roles, wishes.wait_seconds))
        if wishes.moves_shared and not (wishes.is_atomic and is_prepared):
            shared = migrations.migrate_shared(engine, wishes.shared_to)
            yield shared
            if shared.has_failed:
                return
        if not is_prepared:
            held.enter_context(migrators_lock(engine, migrations.roles, wishes.wait_seconds))
        with engine.connect() as connection:
            plan = make_plan(connection, migrations, wishes)
        on_plan(plan)
        if wishes.is_atomic and is_prepared:
            yield from migrate_together(engine, migrations, wishes, plan)
        elif plan.waves:
            yield from _Run(engine, migrations, wishes, plan).outcomes()
        yield from plan.settled


def _is_prepared(engine: Engine) -> bool:
    with engine.connect() as connection:
        table = f"{SHARED_SCHEMA}.{VERSION_TABLE}"
        return connection.exec_driver_sql("SELECT to_regclass(%s)", (table,)).scalar() is not None


class _Run:
    """What goes on after the plan."""

    def __init__(self, engine: Engine, migrations: Migrations, wishes: Wishes, plan: Plan) -> None:
        self._engine = engine
        self._migrations = migrations
        self._wishes = wishes
        self._plan = plan
        self._failures = sum(outcome.has_failed for outcome in plan.settled)
        self._workers: list[Worker] = []

    def outcomes(self) -> Iterator[Outcome]:
        run_id = record.begin(self._engine, self._migrations.roles, self._plan)
        try:
            for wave in self._plan.waves:
                if self._failures > self._wishes.budget:
                    yield from map(skipped, wave)
                else:
                    yield from self._wave(run_id, wave)
        except BaseException:
            # Without a server it can't be written down; the next run finds out.
            with suppress(DBAPIError):
                record.end(self._engine, self._migrations.roles, run_id, "stopped")
            raise
        record.end(self._engine, self._migrations.roles, run_id, "failed" if self._failures else "done")

    def _wave(self, run_id: UUID, wave: tuple[Work, ...]) -> Iterator[Outcome]:
        told: SimpleQueue[Outcome | None] = SimpleQueue()
        jobs = min(self._wishes.jobs, len(wave))
        queue = Queue(wave, jobs, self._wishes.budget - self._failures)
        with Blockers(self._engine, self._wishes.lock_timeout_ms / 4000, self._pids) as blockers:
            job = Job(self._engine, self._migrations, self._wishes, run_id, queue, told.put, blockers.of)
            self._workers = [Worker(job) for _ in range(jobs)]
            try:
                for worker in self._workers:
                    worker.start()
                yield from self._listen(told, queue)
            finally:
                self._end_workers(queue)
        for worker in self._workers:
            if worker.failure:
                raise MigrationError(f"A worker could not go on: {first_line(worker.failure)}") from worker.failure

    def _listen(self, told: "SimpleQueue[Outcome | None]", queue: Queue) -> Iterator[Outcome]:
        """Pass on what the workers tell until all have ended, and then what they have left."""
        at_work = len(self._workers)
        while at_work:
            outcome = told.get()
            if outcome is None:
                at_work -= 1
                continue
            self._failures += outcome.has_failed and not outcome.was_skipped
            yield outcome
        yield from map(skipped, queue.close())

    def _end_workers(self, queue: Queue) -> None:
        """They have ended, unless the run was interrupted: then what they are doing is undone."""
        queue.close()
        for worker in self._workers:
            worker.cancel()
        for worker in self._workers:
            worker.join()

    def _pids(self) -> list[int]:
        return [pid for worker in self._workers if (pid := worker.pid) is not None]
