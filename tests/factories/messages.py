"""Counts the messages that a client sends to PostgreSQL, in libpq's own trace."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import pq

from tenant_schemas.search_path import BindingEngine


@contextmanager
def sent_by(engine: BindingEngine) -> Iterator[list[list[str]]]:
    """The messages that libpq sends on the engine's idle connection during the block: a list for each exchange. An
    exchange is everything sent before the client waits for an answer; it ends with Query or Sync.
    """
    with engine.connect() as connection:
        pgconn = connection.connection.driver_connection.pgconn
    exchanges: list[list[str]] = []
    with tempfile.TemporaryFile("w+") as trace:
        pgconn.trace(trace.fileno())
        pgconn.set_trace_flags(pq.Trace.SUPPRESS_TIMESTAMPS)
        try:
            yield exchanges
        finally:
            pgconn.untrace()
        trace.seek(0)
        exchange: list[str] = []
        for line in trace:
            direction, _, sent = line.rstrip("\n").partition("\t")
            if direction == "F" and sent:  # Further lines are those of a statement.
                message = sent.partition("\t")[2]
                exchange.append(message)
                if message.split("\t")[0] in {"Query", "Sync"}:
                    exchanges.append(exchange)
                    exchange = []
        if exchange:
            raise AssertionError(f"sent without asking for an answer: {exchange}")
