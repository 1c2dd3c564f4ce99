"""Names the sessions that hold locks, as the reports of all commands name them. Reads PostgreSQL's own views only."""

from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg.rows import TupleRow
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from tenant_schemas.tenant import SHARED_SCHEMA

AnyConnection = Connection | psycopg.Connection[TupleRow]

LOCK_NOT_AVAILABLE: Final = "55P03"

# `pid` is the column of process ids, `a` the row of pg_stat_activity.
SESSION: Final = r"""format('%%s (process %%s%%s%%s%%s%%s)', coalesce(a.usename, 'unknown role'), pid,
    ', ' || nullif(a.application_name, ''), ', ' || a.state,
    ' since ' || to_char(a.xact_start, 'YYYY-MM-DD HH24:MI:SSOF'),
    ', ' || nullif(left(regexp_replace(a.query, '\s+', ' ', 'g'), 80), ''))"""
NO_RIGHT: Final = "unknown: this login may not see other sessions; run `python -m scripts.create_roles` again"
_UNKNOWN: Final = "unknown: the session has ended, or it waits for a row and not for a table"
# A prepared transaction has no process.
_HOLDERS: Final = f"""
    SELECT string_agg(DISTINCT CASE WHEN pid IS NULL THEN 'a prepared transaction (pg_prepared_xacts)' ELSE {SESSION}
        END, '; ')
    FROM (SELECT l.pid FROM pg_locks l
        JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND n.nspname = ANY(%s) AND l.mode = ANY(%s) AND l.pid IS DISTINCT FROM pg_backend_pid()) AS l (pid)
    LEFT JOIN pg_stat_activity a USING (pid)"""  # noqa: S608
# The locks that block readers; then those that block writers. One that is only waited for blocks too: PostgreSQL serves
# a table's queue in turn.
_BLOCKING_MODES: Final = (
    ["AccessExclusiveLock"],
    ["ExclusiveLock", "ShareRowExclusiveLock", "ShareLock"],
)


# How often the server looks whether the client of a session that waits or works is still there. Without it, the session
# of a killed command keeps its locks until it has got the lock that it waits for.
_CLIENT_CHECK: Final = "SET client_connection_check_interval TO '2s'"


def watch_client(session: psycopg.Connection[Any]) -> None:
    """Let the server end this session soon after its client has died. Does nothing on a server whose operating system
    can't tell. Call it on a new connection: it commits.
    """
    try:
        session.execute(_CLIENT_CHECK)
        session.commit()
    except psycopg.errors.InvalidParameterValue:
        session.rollback()


def lock_holders(connection: AnyConnection, schema_name: str) -> str:
    """The sessions that block a session which just waited in vain for a table of this schema, or for one of `shared`.
    Needs an open db transaction that is not aborted; an error aborts nothing of it.
    """
    try:
        for modes in _BLOCKING_MODES:
            ((found,),) = _fetch_in_savepoint(connection, _HOLDERS, ([schema_name, SHARED_SCHEMA], modes))
            if found:
                return str(found)
    except (psycopg.errors.InsufficientPrivilege, SQLAlchemyError):
        return NO_RIGHT
    return _UNKNOWN


def fetch(connection: AnyConnection, query: str, parameters: Sequence[Any] | None = None) -> list[Sequence[Any]]:
    """All rows of a query, on either kind of connection, in its open db transaction."""
    if isinstance(connection, Connection):
        rows = connection.exec_driver_sql(query, None if parameters is None else tuple(parameters))
        return [tuple(row) for row in rows]
    return list(connection.execute(query.encode(), parameters))


def _fetch_in_savepoint(connection: AnyConnection, query: str, parameters: Sequence[Any]) -> list[Sequence[Any]]:
    with connection.begin_nested() if isinstance(connection, Connection) else connection.transaction():
        return fetch(connection, query, parameters)
