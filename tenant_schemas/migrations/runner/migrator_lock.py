"""The migrator lock: a table lock on the version table of `shared`, held on its own connection until the run ends, so
that only one migrator runs at a time.

PostgreSQL releases the lock when the connection ends, so a killed run blocks no other. If the connection is lost during
a run, the guard in each tenant's db transaction still lets only one migrator run each step.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from tenant_schemas.errors import MigratorBusy
from tenant_schemas.migrations.history import VERSION_TABLE, sqlstate_of
from tenant_schemas.roles import ServiceRoles, become_owner
from tenant_schemas.sessions import LOCK_NOT_AVAILABLE
from tenant_schemas.tenant import SHARED_SCHEMA


@contextmanager
def migrator_lock(engine: Engine, roles: ServiceRoles, wait_seconds: float = 0) -> Iterator[bool]:
    """Hold the migrator lock until the block ends. Yields False, without the lock, if `shared` does not exist yet.
    Raises MigratorBusy, which names the holder, after `wait_seconds`. The lock (SHARE UPDATE EXCLUSIVE) conflicts only
    with other migrators.
    """
    with engine.connect() as connection:
        if connection.exec_driver_sql("SELECT to_regclass(%s)", (f"{SHARED_SCHEMA}.{VERSION_TABLE}",)).scalar() is None:
            yield False
            return
        become_owner(connection, roles)
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout TO 0")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout TO {max(1, int(wait_seconds * 1000))}")
        try:
            connection.exec_driver_sql(f"LOCK TABLE {SHARED_SCHEMA}.{VERSION_TABLE} IN SHARE UPDATE EXCLUSIVE MODE")
        except OperationalError as error:
            if sqlstate_of(error) != LOCK_NOT_AVAILABLE:
                raise
            connection.rollback()
            raise MigratorBusy(_busy_message(connection)) from error
        try:
            yield True
        finally:
            connection.invalidate()  # Closes it even if its session is lost and a rollback would fail.


def a_migrator_runs(connection: Connection) -> bool:
    """Whether a session holds the migrator lock. Raises InsufficientPrivilege, wrapped, for a login that may not see
    other sessions. Vacuum takes the same lock, and is no client.
    """
    query = """
        SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
            WHERE l.relation = to_regclass(%s) AND l.granted AND l.mode = 'ShareUpdateExclusiveLock'
                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND a.backend_type = 'client backend')"""
    return bool(connection.exec_driver_sql(query, (f"{SHARED_SCHEMA}.{VERSION_TABLE}",)).scalar_one())


def _busy_message(connection: Connection) -> str:
    query = """
        SELECT started_by, started_at FROM shared.migration_runs WHERE status = 'running'
        ORDER BY started_at DESC LIMIT 1"""
    known = connection.exec_driver_sql("SELECT to_regclass('shared.migration_runs')").scalar()
    row = connection.exec_driver_sql(query).first() if known else None
    holder = f"{row.started_by} since {row.started_at:%Y-%m-%d %H:%M:%S%z}" if row else "its run is not recorded yet"
    return f"Another migrator is running: {holder}. Wait for it (--wait SECONDS), or stop it."
