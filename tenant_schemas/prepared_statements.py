"""The statements of one session, run by libpq's messages without psycopg's cursor, which makes many more calls.

psycopg still adapts the parameters, waits, loads the rows and names the errors. The extended protocol refuses several
statements in one string. A statement is prepared once it has run as often as psycopg's `prepare_threshold` says; where
that is None (PgBouncer, a session that tenants share) nothing is prepared.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString

import psycopg
from psycopg import generators, pq
from psycopg._queries import PostgresQuery
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq.abc import PGresult
from psycopg.rows import TupleRow

from tenant_schemas.tracing import TRACING, set_local

# Texts and types of parameters that a session remembers. The program's statements are far fewer.
MOST_REMEMBERED: Final = 200
# Raised before a prepared statement begins to run: someone deallocated it, or its columns have other types now.
STALE: Final = frozenset({"FetchPreparedStatement", "RevalidateCachedQuery"})

SUCCEEDED: Final = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.EMPTY_QUERY)

Key = tuple[bytes, tuple[int, ...]]


class PreparedStatements:
    """Of one connection, which one thread uses at a time."""

    def __init__(self, connection: psycopg.Connection[TupleRow]) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._transformer = Transformer(connection)
        self._queries: dict[str, PostgresQuery] = {}
        self._uses: dict[Key, int] = {}
        self._names: dict[Key, bytes] = {}
        self._last_number = 0

    def run(
        self, query: LiteralString, params: Sequence[Any] | Mapping[str, Any]
    ) -> tuple[bytes | None, list[TupleRow]]:
        """The command tag and the rows. Raises psycopg's errors."""
        converted = self._converted(query, params)
        try:
            with self._connection.lock:
                result = self._connection.wait(self._exchange(converted))
        finally:
            converted.params = None  # They may be large, or secret.
        if result.status != pq.ExecStatus.TUPLES_OK:
            return result.command_status, []
        self._transformer.set_pgresult(result)
        try:
            return None, self._transformer.load_rows(0, result.ntuples, tuple)
        finally:
            self._transformer.set_pgresult(None)

    def forget(self) -> None:
        """The server has deallocated all statements: prepare each again at its next use."""
        self._names.clear()

    def _converted(self, query: str, params: Sequence[Any] | Mapping[str, Any]) -> PostgresQuery:
        """The query in PostgreSQL's form; its text is converted once, its parameters each time."""
        known = self._queries.get(query)
        if known is not None:
            known.dump(params)
            return known
        converted = PostgresQuery(self._transformer)
        converted.convert(query, params)
        if len(self._queries) < MOST_REMEMBERED:
            self._queries[query] = converted
        return converted

    def _exchange(self, query: PostgresQuery) -> PQGen[PGresult]:
        """Send the statement and receive its result. A stale prepared statement is prepared anew, once."""
        key = (query.query, query.types)
        name = self._names.get(key) or (yield from self._prepared_if_due(key))
        result = yield from self._executed(query, name)
        if name and _has_stale(result):
            del self._names[key]
            result = yield from self._executed(query, None)
        _raise_if_failed(result, self._connection)
        return result

    def _prepared_if_due(self, key: Key) -> PQGen[bytes | None]:
        """The name of the statement if it has run often enough to be prepared now."""
        threshold, uses = self._connection.prepare_threshold, self._uses.get(key, 0)
        if threshold is None or (not uses and len(self._uses) >= MOST_REMEMBERED):
            return None
        if uses < threshold:
            self._uses[key] = uses + 1
            return None
        self._last_number += 1
        name = b"tenant_schemas_%d" % self._last_number
        text, types = key
        self._pgconn.send_prepare(name, text, types)
        _raise_if_failed((yield from self._result()), self._connection)
        self._names[key] = name
        return name

    def _executed(self, query: PostgresQuery, name: bytes | None) -> PQGen[PGresult]:
        if TRACING.tracer is not None and self._pgconn.transaction_status == pq.TransactionStatus.IDLE:
            setting = TRACING.tracer.transaction_setting()
            if setting is not None:
                return (yield from self._executed_with(setting, query, name))
        self._send(query, name)
        return (yield from self._result())

    def _executed_with(self, setting: tuple[str, str], query: PostgresQuery, name: bytes | None) -> PQGen[PGresult]:
        """Send the statement in a db transaction that begins with the setting: one exchange, or two if it fails. After
        an exception the connection is still in pipeline mode, and the pool closes it.
        """
        self._pgconn.enter_pipeline_mode()
        for before in (b"BEGIN", set_local(setting)):
            self._pgconn.send_query_params(before, None)
        self._send(query, name)
        self._pgconn.send_query_params(b"COMMIT", None)
        self._pgconn.pipeline_sync()
        results = [(yield from self._result())]
        for _ in range(4):  # Those of the setting, the statement and COMMIT, and the end of the pipeline.
            results.append((yield from generators.fetch_many(self._pgconn))[0])
        self._pgconn.exit_pipeline_mode()
        if self._pgconn.transaction_status != pq.TransactionStatus.IDLE:
            self._pgconn.send_query_params(b"ROLLBACK", None)
            yield from generators.execute(self._pgconn)
        failed = [result for result in results if result.status == pq.ExecStatus.FATAL_ERROR]
        return failed[0] if failed else results[2]

    def _send(self, query: PostgresQuery, name: bytes | None) -> None:
        if name:
            self._pgconn.send_query_prepared(name, query.params, query.formats)
        else:
            self._pgconn.send_query_params(query.query, query.params, query.types, query.formats)

    def _result(self) -> PQGen[PGresult]:
        """The only result: the extended protocol runs one statement."""
        results: list[PGresult] = yield from generators.execute(self._pgconn)
        return results[0]


def is_stale(error: psycopg.Error) -> bool:
    """Whether a prepared statement failed only because it was prepared too long ago."""
    return error.diag.source_function in STALE


def _has_stale(result: PGresult) -> bool:
    return (
        result.status == pq.ExecStatus.FATAL_ERROR
        and (result.error_field(pq.DiagnosticField.SOURCE_FUNCTION) or b"").decode() in STALE
    )


def _raise_if_failed(result: PGresult, connection: psycopg.Connection[TupleRow]) -> None:
    status = result.status
    if status in SUCCEEDED:
        return
    if status == pq.ExecStatus.FATAL_ERROR:
        raise error_from_result(result, connection.info.encoding)
    # The connection is left in COPY mode, so the pool closes it.
    raise psycopg.ProgrammingError("one_statement() can't run COPY.")
