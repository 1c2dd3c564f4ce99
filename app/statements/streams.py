"""Answers that are read from the database while they are sent.

A streamed answer outlives its request: when it is iterated, the tenant's binding, the session and Flask's contexts are
gone. So it has a context of its own with the tenant bound, and a connection of its own, which is returned when the
stream ends, fails or is closed because the client disconnected.
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

BATCH: Final = 500  # movements, about 200 KB of text
# A stream ends when its client reads nothing for this long: its snapshot delays vacuum, and it holds a connection.
STALLED_CLIENT_SECONDS = 60


class BoundStream:
    """The pieces of an answer, each made with the tenant bound and without the request's context.

    The first piece is made at once, so refusals come before the answer has a status. A later error is raised to the
    WSGI server, which closes the connection: the client sees that the answer is incomplete.
    """

    def __init__(self, tenant: Tenant, pieces: Iterator[bytes]) -> None:
        self._context = Context()
        self._context.run(bind, tenant)  # Only this stream uses the context, so no token needs to be reset.
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
        """Return the connection. WSGI servers always call it."""
        close: Any = getattr(self._pieces, "close", None)
        if close is not None:
            self._context.run(close)


@contextmanager
def snapshot(engine: BindingEngine) -> Iterator[sa.Connection]:
    """A connection in a read-only db transaction with one snapshot, however long it lasts.

    Locks nothing. Commits at the end of the block, or rolls back after an error, and returns the connection.
    """
    with engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout TO '{STALLED_CLIENT_SECONDS}s'")
        yield connection


@contextmanager
def batches(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[Iterator[Sequence[Line]]]:
    """The rows of a query for LINE_COLUMNS or PROVEN_COLUMNS through a server-side cursor. One batch at a time is in
    memory.
    """
    with connection.execute(query, execution_options={"yield_per": BATCH}) as result:
        yield ([Line(*row) for row in partition] for partition in result.partitions())
