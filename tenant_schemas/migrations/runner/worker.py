"""A worker of a run: takes tenants from the queue and migrates each in its own db transaction, several per message.

PostgreSQL runs the statements of a message in order and stops at the first that fails. The tenants before it are then
committed, the failed one is rolled back, and the ones after it have not started and are sent again.
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

from tenant_schemas.migrations.concurrent_index import run_concurrently
from tenant_schemas.migrations.history import Migrations, Outcome, first_line, run_steps, sqlstate_of
from tenant_schemas.migrations.replay import Part, changes_of, done_text, opening_text, send_parts
from tenant_schemas.migrations.runner import journal
from tenant_schemas.migrations.runner.plan import MigrateOptions, TenantMigration
from tenant_schemas.migrations.runner.queue import Queue
from tenant_schemas.roles import driver_of, send
from tenant_schemas.sessions import LOCK_NOT_AVAILABLE

TENANTS_PER_MESSAGE = 10
LONGEST_DELAY_SECONDS = 30.0
CONNECT_SECONDS = 10.0
QUERY_CANCELED = "57014"
# Errors to retry: lock_not_available, deadlock_detected, serialization_failure, too_many_connections, and a broken
# connection: connection_failure, admin_shutdown, crash_shutdown, cannot_connect_now, or no SQLSTATE at all.
_LOCK_ERRORS = frozenset({LOCK_NOT_AVAILABLE, "40P01"})
_RETRYABLE = _LOCK_ERRORS | frozenset({"40001", "53300", "08006", "57P01", "57P02", "57P03"})


@dataclass(frozen=True, slots=True)
class Job:
    """The values that all workers of a run share. Each worker calls `report` with every outcome, and with None at its
    end. `blocker_of` names the session that blocks a backend.
    """

    engine: Engine
    migrations: Migrations
    options: MigrateOptions
    run_id: UUID
    queue: Queue
    report: Callable[[Outcome | None], None]
    blocker_of: Callable[[int], str | None]


class Worker:
    """A thread with its own connection. It ends if the connection can't be opened; `failure` is the error."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._connection: sa.Connection | None = None
        self._thread = Thread(target=self._run, name="migrator", daemon=True)
        self.failure: BaseException | None = None

    @property
    def pid(self) -> int | None:
        """The process id of its backend; None without a connection."""
        connection = self._connection
        return driver_of(connection).info.backend_pid if connection and not _is_broken(connection) else None

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def cancel(self) -> None:
        """Cancel its current statement; PostgreSQL rolls the db transaction back."""
        connection = self._connection
        if connection and not _is_broken(connection):
            driver_of(connection).cancel_safe(timeout=5)

    def _run(self) -> None:
        most = TENANTS_PER_MESSAGE if self._job.options.budget == float("inf") else 1
        batch: list[TenantMigration] = []
        try:
            while batch := self._job.queue.take(most):
                self._migrate(batch)
        except BaseException as error:  # noqa: BLE001  After any error the other workers continue.
            self.failure = error
            self._job.queue.put_first(batch)
        finally:
            self._close()
            self._job.report(None)

    def _migrate(self, batch: Sequence[TenantMigration]) -> None:
        """Migrate the batch. An error of one tenant becomes its outcome; an error that ends this worker is raised."""
        connection = self._open()
        pid = driver_of(connection).info.backend_pid
        try:
            if batch[0].goes_alone:
                self._migrate_alone(connection, batch[0])
            else:
                send_parts(connection, self._message(batch))
        except BaseException as error:  # noqa: BLE001  Any error is that tenant's outcome.
            blocker = self._job.blocker_of(pid)
            self._handle_failure(batch, error, blocker if sqlstate_of(error) in _LOCK_ERRORS else None)
        else:
            self._job.blocker_of(pid)  # Forget a blocker that has released its lock.
            for migration in batch:
                self._report_done(migration)

    def _message(self, batch: Sequence[TenantMigration]) -> list[Part]:
        parts = [Part(self._running_text(batch))]
        for migration in batch:
            parts.append(Part(f"BEGIN;{self._opening_text(migration, migration.target)}"))
            parts += changes_of(migration.steps, migration.tenant.schema_name)
            parts.append(Part(f"{self._done_text(migration)}COMMIT;"))
        return parts

    def _migrate_alone(self, connection: sa.Connection, migration: TenantMigration) -> None:
        """Migrate a tenant whose steps run Python or have a concurrent index, and commit it leg by leg."""
        send(connection, self._running_text([migration]))
        *earlier, last = migration.legs
        for leg in earlier:
            self._run_leg(connection, leg, done_text(None, leg.tenant, leg.target))
        self._run_leg(connection, last, self._done_text(last))
        connection.rollback()  # Ends SQLAlchemy's own db transaction, which is empty after our COMMIT.

    def _run_leg(self, connection: sa.Connection, leg: TenantMigration, done: str) -> None:
        tenant, step = leg.tenant, leg.steps[0]
        send(connection, f"BEGIN;{self._opening_text(leg, tenant.revision)}")
        if step.concurrent is None:
            run_steps(connection, leg.steps, tenant.schema_name)
            send(connection, f"{done}COMMIT")
            return
        send(connection, "COMMIT")  # Only the guard was needed.
        roles, timeouts = self._job.migrations.roles, self._job.options.timeouts
        run_concurrently(connection, step.revision, step.concurrent, tenant.schema_name, roles, **timeouts)
        send(connection, f"BEGIN;{self._opening_text(leg, leg.target)}{done}COMMIT")

    def _running_text(self, batch: Sequence[TenantMigration]) -> str:
        return f"BEGIN;SET LOCAL synchronous_commit TO off;{journal.running_text(self._job.run_id, batch)}COMMIT;"

    def _opening_text(self, migration: TenantMigration, target: str) -> str:
        roles, timeouts = self._job.migrations.roles, self._job.options.timeouts
        return opening_text(migration.tenant, roles, target=target, **timeouts)

    def _done_text(self, migration: TenantMigration) -> str:
        return done_text(self._job.run_id, migration.tenant, migration.target)

    def _handle_failure(self, batch: Sequence[TenantMigration], error: BaseException, blocked_by: str | None) -> None:
        """Read which tenants of the batch are committed. The first one that is not is the one that failed; the ones
        after it go back to the queue.
        """
        connection = self._open()
        send(connection, "ROLLBACK")
        connection.rollback()
        done = self._committed(connection, batch)
        for migration in batch:
            if migration.tenant.id in done:
                self._report_done(migration)
        left = [migration for migration in batch if migration.tenant.id not in done]
        self._job.queue.put_first(left[1:])
        for first in left[:1]:
            rest = self._without_committed_legs(connection, first)
            self._retry_or_fail(connection, replace(rest, attempts=first.attempts + 1), error, blocked_by)

    def _committed(self, connection: sa.Connection, batch: Sequence[TenantMigration]) -> set[UUID]:
        query = "SELECT id FROM shared.tenants WHERE id = ANY(%s) AND revision = %s"
        rows = driver_of(connection).execute(query, ([migration.tenant.id for migration in batch], batch[0].target))
        return {row[0] for row in rows}

    def _without_committed_legs(self, connection: sa.Connection, migration: TenantMigration) -> TenantMigration:
        query = "SELECT revision FROM shared.tenants WHERE id = %s"
        row = driver_of(connection).execute(query, (migration.tenant.id,)).fetchone()
        for leg_start, step in enumerate(migration.steps):
            if row is not None and step.before == row[0]:
                return migration.of_steps(migration.steps[leg_start:])
        return migration

    def _retry_or_fail(
        self, connection: sa.Connection, migration: TenantMigration, error: BaseException, blocked_by: str | None
    ) -> None:
        """Queue a failed tenant for a retry, or record and report its failure."""
        job, sqlstate = self._job, sqlstate_of(error)
        is_broken = sqlstate is None and isinstance(getattr(error, "orig", error), psycopg.OperationalError)
        is_retryable = sqlstate in _RETRYABLE or is_broken
        if job.queue.is_closed and sqlstate == QUERY_CANCELED:
            job.report(skipped_outcome(migration))
        elif is_retryable and migration.attempts < job.options.attempts:
            send(connection, journal.waiting_text(job.run_id, migration, sqlstate, blocked_by))
            delay = job.options.first_delay_seconds * 2 ** (migration.attempts - 1)
            job.queue.put_back(migration, min(delay, LONGEST_DELAY_SECONDS))
        else:
            reason = first_line(error)
            send(connection, journal.failed_text(job.run_id, migration, reason, sqlstate, blocked_by))
            job.queue.note_failure()
            job.report(failed_outcome(migration, reason, sqlstate, blocked_by))

    def _report_done(self, migration: TenantMigration) -> None:
        tenant, attempts = migration.tenant, migration.attempts + 1
        self._job.report(Outcome(tenant.schema_name, tenant.slug, tenant.revision, migration.target, attempts=attempts))

    def _open(self) -> sa.Connection:
        if self._connection is not None and _is_broken(self._connection):
            self._close()
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> sa.Connection:
        """Open a connection; retries for some seconds while the server restarts or has no free connection."""
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


def failed_outcome(
    migration: TenantMigration, reason: str, sqlstate: str | None, blocked_by: str | None = None
) -> Outcome:
    tenant, at = migration.tenant, migration.tenant.revision
    return Outcome(tenant.schema_name, tenant.slug, at, at, reason, sqlstate, migration.attempts, blocked_by)


def skipped_outcome(migration: TenantMigration) -> Outcome:
    return replace(failed_outcome(migration, journal.NOT_MIGRATED, None), was_skipped=True)


def _is_broken(connection: sa.Connection) -> bool:
    return connection.invalidated or driver_of(connection).closed
