"""Asks many tenants one question: each under its own role, in a db transaction that only reads and is never committed.

One statement goes through and no more, so none can leave that db transaction and write in another. What a tenant
answers is held in memory, so the number of its rows is bounded; one that fails is an answer as well.
"""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final, cast

import psycopg
from psycopg.types.string import TextLoader
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from tenant_schemas.connections import Connections
from tenant_schemas.errors import TenancyError
from tenant_schemas.migrations.history import sqlstate_of
from tenant_schemas.tenant import Tenant

# Python has no word for some of PostgreSQL's moments, like -infinity, JSON none for NaN, and bytes are read best as
# PostgreSQL shows them.
_AS_TEXT: Final = ("bytea", "date", "float4", "float8", "interval", "time", "timetz", "timestamp", "timestamptz")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one tenant answered: rows, of which there were more if `is_truncated`; or an `error`."""

    slug: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    is_truncated: bool = False
    error: str | None = None
    sqlstate: str | None = None


def query_all_tenants(
    connections: Connections, tenants: Sequence[Tenant], statement: str, *, max_rows: int, jobs: int = 1
) -> Iterator[Answer]:
    """The answers, in the order of the tenants, `jobs` of them asked at once. Closes each tenant's own connections when
    it has answered.
    """
    ask_one = partial(ask, connections, statement=statement, max_rows=max_rows)
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(ask_one, tenants)


def ask(connections: Connections, tenant: Tenant, *, statement: str, max_rows: int) -> Answer:
    """One tenant's answer, of any status."""
    try:
        with connections.engine(tenant).connect() as connection:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            return _read(connection, tenant, statement, max_rows)
    except (psycopg.Error, SQLAlchemyError, TenancyError) as error:
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
        return Answer(tenant.slug, error=reason, sqlstate=sqlstate_of(error))
    finally:
        connections.retire(tenant.id)


def _read(connection: Connection, tenant: Tenant, statement: str, max_rows: int) -> Answer:
    """Take the rows as they come, and stop the statement when there are enough."""
    session = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    with session.cursor() as cursor:
        for type_name in _AS_TEXT:
            cursor.adapters.register_loader(type_name, TextLoader)
        stream = cast("Generator[Any]", cursor.stream(statement))
        with closing(stream):
            rows = tuple(islice(stream, max_rows + 1))
        columns = tuple(column.name for column in cursor.description or ()) or _columns(session, statement)
    return Answer(tenant.slug, columns, rows[:max_rows], is_truncated=len(rows) > max_rows)


def _columns(session: psycopg.Connection[Any], statement: str) -> tuple[str, ...]:
    """Of a statement that brought no rows: psycopg tells them with the first one only."""
    session.pgconn.prepare(b"", statement.encode(session.info.encoding))
    told = session.pgconn.describe_prepared(b"")
    names = (told.fname(number) or b"" for number in range(told.nfields))
    return tuple(name.decode(session.info.encoding) for name in names)
