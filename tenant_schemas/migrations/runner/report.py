"""Reads the recorded runs of the migrator, past and current."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Run:
    """One run, with the number of tenants by status. Without `finished_at` it is still running, or was killed."""

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
    return [Run(*row) for row in connection.exec_driver_sql(_RUNS, (id_prefix, limit))]


def tenants_in_run(connection: Connection, run: Run) -> list[TenantInRun]:
    return [TenantInRun(*row) for row in connection.exec_driver_sql(_TENANTS, (run.id,))]
