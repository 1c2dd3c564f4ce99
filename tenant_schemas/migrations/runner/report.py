"""Reads the recorded runs of the migrator, past and current. A run on record as running, without a migrator, was
killed: the next run will record that, and it is shown so before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from tenant_schemas.migrations.runner.journal import KILLED
from tenant_schemas.migrations.runner.migrator_lock import a_migrator_runs


@dataclass(frozen=True, slots=True)
class Run:
    """One run, with the number of tenants by status. Without `finished_at` it is still running, or was killed and no
    run has followed.
    """

    id: UUID
    target: str
    started_by: str
    status: str
    started_at: datetime
    finished_at: datetime | None
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class TenantInRun:
    """The outcome of one tenant in a run."""

    slug: str
    schema_name: str
    wave: int
    revision_before: str
    status: str
    attempts: int
    sqlstate: str | None
    error: str | None
    blocked_by: str | None
    finished_at: datetime | None


_RUNNING, _KILLED = "running", "killed"
_UNFINISHED = ("pending", "running")
_RUNS = """
    SELECT r.id, r.target, r.started_by, r.status, r.started_at, r.finished_at,
        coalesce((SELECT jsonb_object_agg(c.status, c.tenants) FROM (
            SELECT o.status, count(*) AS tenants FROM shared.migration_outcomes o WHERE o.run_id = r.id
            GROUP BY o.status) c), '{}')
    FROM shared.migration_runs r WHERE starts_with(r.id::text, %s) ORDER BY r.started_at DESC LIMIT %s"""
_TENANTS = """
    SELECT slug, schema_name, wave, revision_before, status, attempts, sqlstate, error, blocked_by, finished_at
    FROM shared.migration_outcomes WHERE run_id = %s ORDER BY wave, slug"""


def last_runs(connection: Connection, limit: int, id_prefix: str = "") -> list[Run]:
    """The latest runs, newest first; none if `shared` does not have the tables yet."""
    if connection.exec_driver_sql("SELECT to_regclass('shared.migration_runs')").scalar() is None:
        return []
    runs = [Run(*row) for row in connection.exec_driver_sql(_RUNS, (id_prefix, limit))]
    if any(run.status == _RUNNING for run in runs) and not _a_migrator_may_run(connection):
        return [_as_killed(run) if run.status == _RUNNING else run for run in runs]
    return runs


def tenants_in_run(connection: Connection, run: Run) -> list[TenantInRun]:
    """The tenants of a run of `last_runs`."""
    tenants = [TenantInRun(*row) for row in connection.exec_driver_sql(_TENANTS, (run.id,))]
    if run.status != _KILLED:
        return tenants
    return [replace(each, status="skipped", error=KILLED) if each.status in _UNFINISHED else each for each in tenants]


def _a_migrator_may_run(connection: Connection) -> bool:
    """True also if this login may not see it."""
    try:
        with connection.begin_nested():
            return a_migrator_runs(connection)
    except DBAPIError:
        return True


def _as_killed(run: Run) -> Run:
    """As the next run will record it."""
    counts = {status: count for status, count in run.counts.items() if status not in _UNFINISHED}
    skipped = counts.get("skipped", 0) + sum(run.counts.get(status, 0) for status in _UNFINISHED)
    return replace(run, status=_KILLED, counts=counts | ({"skipped": skipped} if skipped else {}))
