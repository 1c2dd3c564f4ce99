"""Takes strong locks in short attempts with pauses. A waiting strong lock blocks every later query on the table, so
each attempt waits only briefly.
"""

from time import sleep
from typing import Final, LiteralString

from psycopg import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from tenant_schemas.errors import LifecycleError
from tenant_schemas.migrations.history import sqlstate_of

_LOCK_ERRORS: Final = frozenset({"55P03", "40P01"})  # lock_not_available, deadlock_detected
_LOCK_TIMEOUT_MS: Final = 200
_PAUSES_SECONDS: Final = (0.2, 0.4, 0.8, 1.6)


def lock_tables(connection: Connection, schema_name: str, mode: LiteralString) -> None:
    """Lock all tables of a schema until the db transaction ends. Raises LifecycleError if they stay in use."""
    query = """
        SELECT c.relname FROM pg_catalog.pg_class c
        WHERE c.relnamespace = pg_catalog.to_regnamespace(%s) AND c.relkind IN ('r', 'p') ORDER BY 1"""
    quoted = sql.Identifier(schema_name).as_string()
    tables = [sql.Identifier(schema_name, name) for name in connection.exec_driver_sql(query, (quoted,)).scalars()]
    if tables:
        locking = sql.SQL("LOCK TABLE {} IN {} MODE").format(sql.SQL(", ").join(tables), sql.SQL(mode))
        run_with_lock_retry(connection, locking, f"the tables of schema {schema_name}")


def run_with_lock_retry(connection: Connection, statement: sql.Composable, tables: str) -> None:
    """Run a statement that takes strong locks, in a savepoint for each attempt, so that no lock is held during a pause.
    Raises LifecycleError, which names `tables`, if the locks stay unavailable.
    """
    for pause_seconds in (*_PAUSES_SECONDS, None):
        try:
            with connection.begin_nested():
                connection.exec_driver_sql(f"SET LOCAL lock_timeout TO {_LOCK_TIMEOUT_MS}")
                connection.exec_driver_sql(statement.as_string())
        except DBAPIError as error:
            if sqlstate_of(error) not in _LOCK_ERRORS:
                raise
            if pause_seconds is None:
                raise LifecycleError(
                    f"Could not lock {tables}: they are in use. Nothing was changed. "
                    "Try again when the sessions that use them have ended."
                ) from error
            sleep(pause_seconds)
        else:
            return
