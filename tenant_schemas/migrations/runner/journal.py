"""The durable record of runs, in `shared.migration_runs` and `shared.migration_outcomes`.

What a tenant's own db transaction writes is given as text, to be sent with it: so `done` is there if, and only if, it
was done. The rest is written in db transactions of its own.
"""

import os
import pwd
import socket
from collections.abc import Iterable, Sequence
from uuid import UUID, uuid4

from psycopg import sql
from sqlalchemy import Engine

from tenant_schemas.migrations.runner.plan import Plan, TenantMigration
from tenant_schemas.roles import ServiceRoles, become_owner, send

_NOT_DONE = "The run ended before it was done."
_NEW_RUN = "INSERT INTO shared.migration_runs (id, target, started_by) VALUES (%s, %s, %s)"
_NEW_OUTCOMES = """
    INSERT INTO shared.migration_outcomes (run_id, tenant_id, slug, schema_name, wave, revision_before)
    SELECT %s, o.* FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::integer[], %s::text[]) AS o"""
# Whoever holds the migrator's lock knows that no other run is under way.
_DEAD_OUTCOMES = """
    UPDATE shared.migration_outcomes o SET status = 'skipped', error = %s, finished_at = now()
    FROM shared.migration_runs r
    WHERE r.id = o.run_id AND r.status = 'running' AND o.status IN ('pending', 'running')"""
_DEAD_RUNS = "UPDATE shared.migration_runs SET status = 'killed', finished_at = now() WHERE status = 'running'"
_REST = """
    UPDATE shared.migration_outcomes SET status = 'skipped', error = %s, finished_at = now()
    WHERE run_id = %s AND status IN ('pending', 'running')"""
_END = "UPDATE shared.migration_runs SET status = %s, finished_at = clock_timestamp() WHERE id = %s"


def tables_exist(engine: Engine) -> bool:
    """Whether `shared` has come to the revision that makes the tables of the record."""
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT to_regclass('shared.migration_outcomes')").scalar() is not None


def mark_abandoned(engine: Engine, roles: ServiceRoles) -> None:
    """Note the end of runs that were killed. To be called under the lock, where there is the record."""
    with engine.begin() as connection:
        become_owner(connection, roles)
        connection.exec_driver_sql(_DEAD_OUTCOMES, ("The run was killed.",))
        connection.exec_driver_sql(_DEAD_RUNS)


def begin(engine: Engine, roles: ServiceRoles, plan: Plan) -> UUID:
    """Note a run and all that it is to do."""
    run_id, works = uuid4(), plan.migrations
    columns = (
        [work.tenant.id for work in works],
        [work.tenant.slug for work in works],
        [work.tenant.schema_name for work in works],
        [work.wave for work in works],
        [work.tenant.revision for work in works],
    )
    with engine.begin() as connection:
        become_owner(connection, roles)
        connection.exec_driver_sql(_NEW_RUN, (run_id, plan.target, process_name()))
        connection.exec_driver_sql(_NEW_OUTCOMES, (run_id, *columns))
    return run_id


def end(engine: Engine, roles: ServiceRoles, run_id: UUID, status: str, last_words: str = "") -> None:
    """Note how a run ended. This db transaction waits for the disk, and so for everything that was committed before."""
    with engine.begin() as connection:
        become_owner(connection, roles)
        if last_words:
            send(connection, last_words)
        connection.exec_driver_sql(_REST, (_NOT_DONE, run_id))
        connection.exec_driver_sql(_END, (status, run_id))


def running_text(run_id: UUID, works: Sequence[TenantMigration]) -> str:
    return (
        _update("status = 'running'", run_id, works)
        # They may be done since: whoever tried before has lost the connection and doesn't know.
        + sql.SQL(" AND status <> 'done';").as_string()
    )


def done_text(run_id: UUID, work: TenantMigration) -> str:
    change = "status = 'done', attempts = attempts + 1, error = NULL, sqlstate = NULL"
    return _update(f"{change}, finished_at = clock_timestamp()", run_id, [work]) + ";"


def waiting_text(run_id: UUID, work: TenantMigration, sqlstate: str | None, blocked_by: str | None) -> str:
    """It is tried again; why it was not done yet."""
    change = sql.SQL(
        "status = 'pending', attempts = attempts + 1, sqlstate = {}, blocked_by = coalesce({}, blocked_by)"
    )
    return _update(change.format(sqlstate, blocked_by).as_string(), run_id, [work]) + " AND status <> 'done';"


def failed_text(run_id: UUID, work: TenantMigration, error: str, sqlstate: str | None, blocked_by: str | None) -> str:
    change = sql.SQL(
        "status = 'failed', attempts = attempts + 1, error = {}, sqlstate = {},"
        " blocked_by = coalesce({}, blocked_by), finished_at = clock_timestamp()"
    )
    return _update(change.format(error, sqlstate, blocked_by).as_string(), run_id, [work]) + ";"


def _update(change: str, run_id: UUID, works: Iterable[TenantMigration]) -> str:
    ids = sql.SQL(", ").join(sql.Literal(str(work.tenant.id)) for work in works).as_string()
    run = sql.Literal(str(run_id)).as_string()
    return f"UPDATE shared.migration_outcomes SET {change} WHERE run_id = {run} AND tenant_id IN ({ids})"  # noqa: S608


def process_name() -> str:
    """This process, for whoever finds its record or waits for its lock."""
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    return f"{user}@{socket.gethostname()}, process {os.getpid()}"
