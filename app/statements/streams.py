"""Answers that are still being read from the database while they are sent.

A streamed answer outlives its request: the tenant's binding, the session and Flask's contexts are gone when it is
iterated. So it has a context of its own with the tenant bound in it, and a connection of its own, which goes back when
the stream ends, breaks, or is closed because the client went away.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from typing import Any, Final

import sqlalchemy as sa
import structlog

from app.statements.models import Line
from tenant_schemas.context import bind
from tenant_schemas.search_path import BindingEngine
from tenant_schemas.tenant import Tenant

log = structlog.get_logger(__name__)

BATCH: Final = 500  # movements; some 200 KB of text
# A client that reads nothing for so long loses its stream: its snapshot would keep vacuum waiting, and its connection
# others.
STALLED_CLIENT_SECONDS = 60


class BoundStream:
    """The pieces of an answer, each made with the tenant bound and none of the request's own context.

    The first piece is made at once, so what can be refused is refused before the answer has a status. An error later on
    is raised to the WSGI server, which breaks the connection off: the client sees that the answer has no end.
    """

    def __init__(self, tenant: Tenant, pieces: Iterator[bytes]) -> None:
        self._context = Context()
        self._context.run(bind, tenant)  # Nothing else ever runs there, so there is nothing to give back.
        self._about = structlog.contextvars.get_contextvars()
        self._pieces = pieces
        self._first: bytes | None = self._context.run(next, pieces)

    def __iter__(self) -> "BoundStream":
        return self

    def __next__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        try:
            return self._context.run(next, self._pieces)
        except StopIteration:
            raise
        except Exception as error:
            log.error("stream_broken", exc_info=error, **self._about)  # noqa: TRY400
            raise

    def close(self) -> None:
        """Give the connection back. WSGI servers call it however the answer ended."""
        close: Any = getattr(self._pieces, "close", None)
        if close is not None:
            self._context.run(close)


@contextmanager
def snapshot(engine: BindingEngine) -> Iterator[sa.Connection]:
    """A connection in a db transaction that sees one moment, however long it takes, and can write nothing.

    Locks nothing. Given back at the end of the block, whatever happens in it; committed if nothing did.
    """
    with engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout TO '{STALLED_CLIENT_SECONDS}s'")
        yield connection


@contextmanager
def batches(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[Iterator[Sequence[Line]]]:
    """The rows of a query for LINE_COLUMNS, through a cursor that PostgreSQL keeps: a batch at a time is in memory."""
    with connection.execute(query, execution_options={"yield_per": BATCH}) as result:
        yield ([Line._make(row) for row in partition] for partition in result.partitions())
