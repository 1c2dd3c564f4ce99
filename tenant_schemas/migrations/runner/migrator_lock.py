"""One migrator at a time: a lock on a table that nobody else locks, held by a connection of its own until the run ends.

PostgreSQL lets go of it whenever that connection is gone, so a killed run keeps nobody waiting. Were it lost in the
middle of a run, the guard in each tenant's db transaction still lets only one migrator do each step.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from tenant_schemas.errors import MigratorBusy
from tenant_schemas.migrations.history import VERSION_TABLE, sqlstate_of
from tenant_schemas.roles import ServiceRoles, become_owner
from tenant_schemas.tenant import SHARED_SCHEMA

LOCK_NOT_AVAILABLE = "55P03"


@contextmanager
def migrator_lock(engine: Engine, roles: ServiceRoles, wait_seconds: float = 0) -> Iterator[None]:
    """Be the only migrator, or raise MigratorBusy, which says who is. Blocks nobody but other migrators."""
    with engine.connect() as connection:
        become_owner(connection, roles)
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout TO 0")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout TO {max(1, int(wait_seconds * 1000))}")
        try:
            connection.exec_driver_sql(f"LOCK TABLE {SHARED_SCHEMA}.{VERSION_TABLE} IN SHARE UPDATE EXCLUSIVE MODE")
        except OperationalError as error:
            if sqlstate_of(error) != LOCK_NOT_AVAILABLE:
                raise
            connection.rollback()
            raise MigratorBusy(_who_is_at_it(connection)) from error
        try:
            yield
        finally:
            connection.invalidate()  # Also where its session is gone, and could not be ended well.


def _who_is_at_it(connection: Connection) -> str:
    query = """
        SELECT started_by, started_at FROM shared.migration_runs WHERE status = 'running'
        ORDER BY started_at DESC LIMIT 1"""
    known = connection.exec_driver_sql("SELECT to_regclass('shared.migration_runs')").scalar()
    row = connection.exec_driver_sql(query).first() if known else None
    who = f"{row.started_by} since {row.started_at:%Y-%m-%d %H:%M:%S%z}" if row else "it has not said who it is yet"
    return f"Another migrator is at work: {who}. Wait for it (--wait SECONDS), or stop it."
