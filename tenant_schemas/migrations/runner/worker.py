"""One of a run's workers: takes tenants from the queue and gives each its own db transaction, several to a message.

PostgreSQL runs the statements of a message one after another and stops at the first that fails. So the tenants before
it are done, that one has lost nothing but its turn, and those behind it were not begun: they are sent again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Thread
from time import monotonic, sleep
from uuid import UUID

import psycopg
import sqlalchemy as sa
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from tenant_schemas.migrations.history import Migrations, Outcome, first_line, run_steps, sqlstate_of
from tenant_schemas.migrations.replay import opening, registry_update_text, steps_text
from tenant_schemas.migrations.runner import journal
from tenant_schemas.migrations.runner.migrator_lock import LOCK_NOT_AVAILABLE
from tenant_schemas.migrations.runner.plan import MigrateOptions, TenantMigration
from tenant_schemas.migrations.runner.queue import Queue
from tenant_schemas.roles import driver_of, send

TENANTS_PER_MESSAGE = 10
LONGEST_DELAY_SECONDS = 30.0
CONNECT_SECONDS = 10.0
QUERY_CANCELED = "57014"
# What may pass, so that another try is worth it: deadlock_detected, serialization_failure, too_many_connections, and a
# connection that broke: connection_failure, admin_shutdown, crash_shutdown, cannot_connect_now, or no word at all.
_OF_LOCKS = frozenset({LOCK_NOT_AVAILABLE, "40P01"})
_PASSING = _OF_LOCKS | frozenset({"40001", "53300", "08006", "57P01", "57P02", "57P03"})


@dataclass(frozen=True, slots=True)
class Job:
    """What all workers of a run share. `tell` is called by each with every outcome, and with None when it ends."""

    engine: Engine
    migrations: Migrations
    options: MigrateOptions
    run_id: UUID
    queue: Queue
    tell: Callable[[Outcome | None], None]
    in_the_way_of: Callable[[int], str | None]


class Worker:
    """A thread with a connection of its own. One that can't be opened ends it: `failure` says why."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._connection: sa.Connection | None = None
        self._thread = Thread(target=self._work, name="migrator", daemon=True)
        self.failure: BaseException | None = None

    @property
    def pid(self) -> int | None:
        """The number of its server process, while it has one."""
        connection = self._connection
        return driver_of(connection).info.backend_pid if connection and not _is_broken(connection) else None

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def cancel(self) -> None:
        """End what it is doing, which is then undone."""
        connection = self._connection
        if connection and not _is_broken(connection):
            driver_of(connection).cancel_safe(timeout=5)

    def _work(self) -> None:
        most = TENANTS_PER_MESSAGE if self._job.options.budget == float("inf") else 1
        works: list[TenantMigration] = []
        try:
            while works := self._job.queue.take(most):
                self._do(works)
        except BaseException as error:  # noqa: BLE001  Whatever it is, others may go on with what is left.
            self.failure = error
            self._job.queue.put_first(works)
        finally:
            self._close()
            self._job.tell(None)

    def _do(self, works: Sequence[TenantMigration]) -> None:
        """Do these, or one that runs Python. Raises what keeps this worker from going on."""
        connection = self._open()
        pid = driver_of(connection).info.backend_pid
        try:
            if works[0].runs_python:
                self._do_with_python(connection, works[0])
            else:
                send(connection, self._message(works))
        except BaseException as error:  # noqa: BLE001  Whatever it is, it is that tenant's outcome.
            seen = self._job.in_the_way_of(pid)
            self._learn(works, error, seen if sqlstate_of(error) in _OF_LOCKS else None)
        else:
            self._job.in_the_way_of(pid)  # Who was in the way is so no more.
            for work in works:
                self._tell_done(work)

    def _message(self, works: Sequence[TenantMigration]) -> str:
        parts = [self._running(works)]
        for work in works:
            steps = steps_text(work.steps, work.tenant.schema_name)
            parts.append(f"BEGIN;{self._opening(work)}{steps}{self._notes(work)}COMMIT;")
        return "".join(parts)

    def _do_with_python(self, connection: sa.Connection, work: TenantMigration) -> None:
        send(connection, f"{self._running([work])}BEGIN;{self._opening(work)}")
        run_steps(connection, work.steps, work.tenant.schema_name)
        send(connection, f"{self._notes(work)}COMMIT")
        connection.rollback()  # SQLAlchemy began something too, in which nothing is left.

    def _running(self, works: Sequence[TenantMigration]) -> str:
        return f"BEGIN;SET LOCAL synchronous_commit TO off;{journal.running_text(self._job.run_id, works)}COMMIT;"

    def _opening(self, work: TenantMigration) -> str:
        options = self._job.options
        return opening(
            work.tenant,
            self._job.migrations.roles,
            lock_timeout_ms=options.lock_timeout_ms,
            statement_timeout_ms=options.statement_timeout_ms,
        )

    def _notes(self, work: TenantMigration) -> str:
        return registry_update_text(work.tenant, work.target) + journal.done_text(self._job.run_id, work)

    def _learn(self, works: Sequence[TenantMigration], error: BaseException, blocked_by: str | None) -> None:
        """Find out how far they came. The first that is not done is the one that failed."""
        connection = self._open()
        send(connection, "ROLLBACK")
        connection.rollback()
        done = self._done_of(connection, works)
        for work in works:
            if work.tenant.id in done:
                self._tell_done(work)
        left = [work for work in works if work.tenant.id not in done]
        self._job.queue.put_first(left[1:])
        for first in left[:1]:
            self._settle(connection, replace(first, attempts=first.attempts + 1), error, blocked_by)

    def _done_of(self, connection: sa.Connection, works: Sequence[TenantMigration]) -> set[UUID]:
        query = "SELECT id FROM shared.tenants WHERE id = ANY(%s) AND revision = %s"
        rows = driver_of(connection).execute(query, ([work.tenant.id for work in works], works[0].target))
        return {row[0] for row in rows}

    def _settle(
        self, connection: sa.Connection, work: TenantMigration, error: BaseException, blocked_by: str | None
    ) -> None:
        """Try it again later, or let it be."""
        job, sqlstate = self._job, sqlstate_of(error)
        is_broken = sqlstate is None and isinstance(getattr(error, "orig", error), psycopg.OperationalError)
        may_pass = sqlstate in _PASSING or is_broken
        if job.queue.is_closed and sqlstate == QUERY_CANCELED:
            job.tell(skipped(work))
        elif may_pass and work.attempts < job.options.attempts:
            send(connection, journal.waiting_text(job.run_id, work, sqlstate, blocked_by))
            delay = job.options.first_delay_seconds * 2 ** (work.attempts - 1)
            job.queue.put_back(work, min(delay, LONGEST_DELAY_SECONDS))
        else:
            reason = first_line(error)
            send(connection, journal.failed_text(job.run_id, work, reason, sqlstate, blocked_by))
            job.queue.note_failure()
            job.tell(failed(work, reason, sqlstate, blocked_by))

    def _tell_done(self, work: TenantMigration) -> None:
        tenant, attempts = work.tenant, work.attempts + 1
        self._job.tell(Outcome(tenant.schema_name, tenant.slug, tenant.revision, work.target, attempts=attempts))

    def _open(self) -> sa.Connection:
        if self._connection is not None and _is_broken(self._connection):
            self._close()
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> sa.Connection:
        """A server that restarts, or has no connection free, is asked for some seconds."""
        deadline = monotonic() + CONNECT_SECONDS
        while True:
            try:
                connection = self._job.engine.connect()
            except DBAPIError:
                if monotonic() > deadline or self._job.queue.is_closed:
                    raise
                sleep(0.2)
            else:
                driver_of(connection).autocommit = True  # Our own BEGIN and COMMIT stand in the messages.
                return connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()


def failed(work: TenantMigration, reason: str, sqlstate: str | None, blocked_by: str | None = None) -> Outcome:
    tenant, at = work.tenant, work.tenant.revision
    return Outcome(tenant.schema_name, tenant.slug, at, at, reason, sqlstate, work.attempts, blocked_by)


def skipped(work: TenantMigration) -> Outcome:
    return replace(failed(work, "The run ended before it was done.", None), was_skipped=True)


def _is_broken(connection: sa.Connection) -> bool:
    return connection.invalidated or driver_of(connection).closed
