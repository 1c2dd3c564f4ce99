"""Runs one read-only statement for many tenants, each under its own role, in a db transaction that is never committed.

Only one statement is accepted, so it can't end that db transaction and write in another. Rows are held in memory, so
their number per tenant is limited. A tenant's failure is an answer too.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final, cast

import psycopg
from psycopg.types.string import TextLoader
from sqlalchemy import Connection

from tenant_schemas.connections import Connections
from tenant_schemas.tenant import Tenant
from tenant_schemas.visits import FAILURES, failure_of

# Read as text: Python can't hold some of PostgreSQL's times (-infinity), JSON has no NaN, and PostgreSQL's notation of
# bytes is the most readable.
_AS_TEXT: Final = ("bytea", "date", "float4", "float8", "interval", "time", "timetz", "timestamp", "timestamptz")


@dataclass(frozen=True, slots=True)
class Answer:
    """One tenant's rows, without the last ones if `is_truncated`; or its `error`."""

    slug: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    is_truncated: bool = False
    error: str | None = None
    sqlstate: str | None = None


@dataclass(frozen=True, slots=True)
class Locks:
    """The longest wait for a lock, and the function that names the sessions which lock a tenant."""

    timeout_ms: int
    holders_of: Callable[[Tenant], str]


def query_all_tenants(
    connections: Connections, tenants: Sequence[Tenant], statement: str, *, max_rows: int, locks: Locks, jobs: int = 1
) -> Iterator[Answer]:
    """Yield the answers in the order of the tenants, running `jobs` at a time. Closes each tenant's own connections
    after its answer.
    """
    query_one = partial(query_tenant, connections, statement=statement, max_rows=max_rows, locks=locks)
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(query_one, tenants)


def query_tenant(connections: Connections, tenant: Tenant, *, statement: str, max_rows: int, locks: Locks) -> Answer:
    """Run the statement for one tenant of any status. Errors are returned as an answer, not raised."""
    try:
        with connections.engine(tenant).connect() as connection:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            connection.exec_driver_sql(f"SET LOCAL lock_timeout TO {int(locks.timeout_ms)}")
            return _read(connection, tenant, statement, max_rows)
    except FAILURES as error:
        failure = failure_of(error, tenant, locks.holders_of)
        return Answer(tenant.slug, error=str(failure), sqlstate=failure.sqlstate)
    finally:
        connections.retire(tenant.id)


def _read(connection: Connection, tenant: Tenant, statement: str, max_rows: int) -> Answer:
    """Fetch rows until there are enough, then stop the statement."""
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
    """The columns of a statement without rows: psycopg's stream describes them only with the first row."""
    session.pgconn.prepare(b"", statement.encode(session.info.encoding))
    description = session.pgconn.describe_prepared(b"")
    names = (description.fname(number) or b"" for number in range(description.nfields))
    return tuple(name.decode(session.info.encoding) for name in names)
