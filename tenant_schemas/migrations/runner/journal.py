"""Records runs in `shared.migration_runs` and their outcomes by tenant in `shared.migration_outcomes`.

The functions `…_text` return SQL for a worker to send. Status `done` is written by `shared.migration_done_v1` in the
tenant's own db transaction, so that it and the migration commit together. `begin` and `end` use their own.
"""

import os
import pwd
import socket
from collections.abc import Iterable, Sequence
from uuid import UUID, uuid4

from psycopg import sql
from sqlalchemy import Connection, Engine

from tenant_schemas.migrations.runner.plan import Plan, TenantMigration
from tenant_schemas.roles import ServiceRoles, become_owner, send

KILLED = "The run was killed."
NOT_MIGRATED = "The run ended before this tenant was migrated."
_NEW_RUN = "INSERT INTO shared.migration_runs (id, target, started_by) VALUES (%s, %s, %s)"
_NEW_OUTCOMES = """
    INSERT INTO shared.migration_outcomes (run_id, tenant_id, slug, schema_name, wave, revision_before)
    SELECT %s, o.* FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::integer[], %s::text[]) AS o"""
# Correct only under the migrator lock: then no other run can be running.
# The array lets PostgreSQL look for these runs by the primary key of the outcomes, and read nothing if there is none.
_ABANDONED_OUTCOMES = """
    UPDATE shared.migration_outcomes SET status = 'skipped', error = %s, finished_at = now()
    WHERE run_id = ANY (ARRAY(SELECT id FROM shared.migration_runs WHERE status = 'running'))
        AND status IN ('pending', 'running')"""
_ABANDONED_RUNS = "UPDATE shared.migration_runs SET status = 'killed', finished_at = now() WHERE status = 'running'"
_UNFINISHED_OUTCOMES = """
    UPDATE shared.migration_outcomes SET status = 'skipped', error = %s, finished_at = now()
    WHERE run_id = %s AND status IN ('pending', 'running')"""
_END = "UPDATE shared.migration_runs SET status = %s, finished_at = clock_timestamp() WHERE id = %s"


def tables_exist(connection: Connection) -> bool:
    """Whether `shared` is at a revision with the tables of the journal."""
    return connection.exec_driver_sql("SELECT to_regclass('shared.migration_outcomes')").scalar() is not None


def functions_exist(connection: Connection) -> bool:
    """Whether `shared` is at a revision with the functions that migrate a tenant."""
    return connection.exec_driver_sql("SELECT to_regproc('shared.migration_done_v1')").scalar() is not None


def mark_abandoned(connection: Connection, roles: ServiceRoles) -> None:
    """Record that runs without an end were killed. Call it only under the migrator lock, and if `tables_exist`; the
    open db transaction then acts as the owner.
    """
    become_owner(connection, roles)
    connection.exec_driver_sql(_ABANDONED_OUTCOMES, (KILLED,))
    connection.exec_driver_sql(_ABANDONED_RUNS)


def begin(engine: Engine, roles: ServiceRoles, plan: Plan) -> UUID:
    """Record a new run with all tenants of its plan, and return its id; commits."""
    run_id, tenant_migrations = uuid4(), plan.tenant_migrations
    columns = (
        [migration.tenant.id for migration in tenant_migrations],
        [migration.tenant.slug for migration in tenant_migrations],
        [migration.tenant.schema_name for migration in tenant_migrations],
        [migration.wave for migration in tenant_migrations],
        [migration.tenant.revision for migration in tenant_migrations],
    )
    with engine.begin() as connection:
        become_owner(connection, roles)
        connection.exec_driver_sql(_NEW_RUN, (run_id, plan.target, process_name()))
        connection.exec_driver_sql(_NEW_OUTCOMES, (run_id, *columns))
    return run_id


def end(engine: Engine, roles: ServiceRoles, run_id: UUID, status: str, failure_text: str = "") -> None:
    """Record the end of a run; runs `failure_text` first. This commit waits for the disk, and so for all commits of the
    run before it.
    """
    with engine.begin() as connection:
        become_owner(connection, roles)
        if failure_text:
            send(connection, failure_text)
        connection.exec_driver_sql(_UNFINISHED_OUTCOMES, (NOT_MIGRATED, run_id))
        connection.exec_driver_sql(_END, (status, run_id))


def running_text(run_id: UUID, migrations: Sequence[TenantMigration]) -> str:
    return (
        _update("status = 'running'", run_id, migrations)
        # A worker that lost its connection may have committed them without learning of it.
        + sql.SQL(" AND status <> 'done';").as_string()
    )


def waiting_text(run_id: UUID, migration: TenantMigration, sqlstate: str | None, blocked_by: str | None) -> str:
    """Records that a tenant is tried again, and why."""
    change = sql.SQL(
        "status = 'pending', attempts = attempts + 1, sqlstate = {}, blocked_by = coalesce({}, blocked_by)"
    )
    return _update(change.format(sqlstate, blocked_by).as_string(), run_id, [migration]) + " AND status <> 'done';"


def failed_text(
    run_id: UUID, migration: TenantMigration, error: str, sqlstate: str | None, blocked_by: str | None
) -> str:
    change = sql.SQL(
        "status = 'failed', attempts = attempts + 1, error = {}, sqlstate = {},"
        " blocked_by = coalesce({}, blocked_by), finished_at = clock_timestamp()"
    )
    return _update(change.format(error, sqlstate, blocked_by).as_string(), run_id, [migration]) + ";"


def _update(change: str, run_id: UUID, migrations: Iterable[TenantMigration]) -> str:
    ids = sql.SQL(", ").join(sql.Literal(str(migration.tenant.id)) for migration in migrations).as_string()
    run = sql.Literal(str(run_id)).as_string()
    return f"UPDATE shared.migration_outcomes SET {change} WHERE run_id = {run} AND tenant_id IN ({ids})"  # noqa: S608


def process_name() -> str:
    """User, host and process id of this process, for the journal and for a migrator that waits for the lock."""
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    return f"{user}@{socket.gethostname()}, process {os.getpid()}"
