"""psycopg's connection and cursor as this engine uses them: one statement in one string, a BEGIN that may be deferred,
and statements that run without a cursor.
"""

import re
import select
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, LiteralString, Self, cast, overload

import psycopg
from psycopg import generators, pq
from psycopg._queries import PostgresQuery
from psycopg.abc import PQGen, Query
from psycopg.errors import error_from_result
from psycopg.rows import TupleRow, tuple_row

from tenant_schemas.prepared_statements import PreparedStatements, is_stale
from tenant_schemas.tracing import TRACING, set_local

# The command tag is the same for a setting of the session and one of the db transaction.
SETS: Final = frozenset({b"SET", b"RESET"})
SETS_FOR_TRANSACTION: Final = re.compile(r"\s*SET\s+(LOCAL|TRANSACTION|CONSTRAINTS)\s", re.IGNORECASE)


class Columns(Sequence[psycopg.Column]):
    """The columns of a cursor's result, made when they are read. SQLAlchemy asks for them after each statement and
    reads them once for each compiled statement.
    """

    def __init__(self, cursor: psycopg.Cursor[Any], count: int) -> None:
        self._cursor = cursor
        self._indexes = range(count)

    def __len__(self) -> int:
        return len(self._indexes)

    @overload
    def __getitem__(self, index: int) -> psycopg.Column: ...

    @overload
    def __getitem__(self, index: slice) -> list[psycopg.Column]: ...

    def __getitem__(self, index: int | slice) -> psycopg.Column | list[psycopg.Column]:
        found = self._indexes[index]
        if isinstance(found, range):
            return [psycopg.Column(self._cursor, one) for one in found]
        return psycopg.Column(self._cursor, found)


class OneStatementCursor(psycopg.Cursor[TupleRow]):
    """A cursor that refuses several statements in one string. Without parameters psycopg would use the simple protocol,
    which allows them; the extended protocol does not, and needs no more round trips.
    """

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        super().execute(query, params, **options)
        if self.pgresult and isinstance(self.connection, DriverConnection):
            self.connection.note_settings(self.pgresult.command_status, query)
        return self

    def _execute_send(self, query: PostgresQuery, *, force_extended: bool = True, binary: bool | None = None) -> None:
        super()._execute_send(query, force_extended=True, binary=binary)

    @property
    def description(self) -> list[psycopg.Column] | None:
        result = self.pgresult
        count = result.nfields if result else 0
        return cast(list[psycopg.Column], Columns(self, count)) if count else super().description

    def executemany(self, query: Query, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        """psycopg sends many in a pipeline, where a BEGIN message of several statements is not allowed."""
        if isinstance(self.connection, DriverConnection):
            self.connection.begin_now()
        super().executemany(query, params_seq, returning=returning)


class DriverConnection(psycopg.Connection[TupleRow]):
    """A psycopg connection that can defer its BEGIN message to the first statement that needs a db transaction.

    `is_altered` says that a statement changed a setting for the whole session. The pool closes such a connection.
    """

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        super().__init__(pgconn, tuple_row)
        self.deferred_begin: bytes | None = None
        self._is_plain_read = False
        self.is_altered = False
        self._statements = PreparedStatements(self)
        self._poll = select.poll()
        self._poll.register(pgconn.socket, select.POLLIN)

    def execute_plain_read(self, cursor: psycopg.Cursor[TupleRow], query: LiteralString, params: Any) -> None:
        """Execute without the deferred BEGIN. A stale prepared statement is prepared anew, as psycopg does after a
        ROLLBACK.
        """
        self._is_plain_read = True
        try:
            cursor.execute(query, params)
        except psycopg.Error as error:
            if not is_stale(error):
                raise
            self.execute("DEALLOCATE ALL")  # Then psycopg forgets its own.
            cursor.execute(query, params)
        finally:
            self._is_plain_read = False

    def begin(self, message: bytes) -> None:
        """Send a BEGIN message: the only one with several statements. Raises psycopg's errors."""
        with self.lock:
            self.wait(self._begin(message))

    def begin_now(self) -> None:
        """Send the deferred BEGIN, if there is one."""
        if self.deferred_begin is not None:
            self.begin(self.deferred_begin)
            self.deferred_begin = None

    def _begin(self, message: bytes) -> PQGen[None]:
        setting = TRACING.tracer.transaction_setting() if TRACING.tracer else None
        self.pgconn.send_query(message + b"; " + set_local(setting) if setting else message)
        for result in (yield from generators.execute(self.pgconn)):
            if result.status != pq.ExecStatus.COMMAND_OK:
                raise error_from_result(result, self.info.encoding)

    def _start_query(self) -> PQGen[None]:
        """Send a deferred BEGIN, unless for a plain read. psycopg calls this before each statement of each cursor."""
        if self.deferred_begin is None:
            yield from super()._start_query()
        elif not self._is_plain_read:
            yield from self._begin(self.deferred_begin)
            self.deferred_begin = None

    def _deallocate(self, name: bytes | None) -> PQGen[None]:
        """psycopg deallocates all statements after a ROLLBACK and some others: ours too."""
        if name is None:
            self._statements.forget()
        yield from super()._deallocate(name)

    def run(self, query: LiteralString, params: Sequence[Any] | Mapping[str, Any]) -> list[TupleRow]:
        """Run one statement without a cursor. Raises psycopg's errors."""
        tag, rows = self._statements.run(query, params)
        self.note_settings(tag, query)
        return rows

    def note_settings(self, tag: bytes | None, statement: Any) -> None:
        """Note whether this statement, which had this command tag, changed a setting for the whole session."""
        if tag in SETS and not (isinstance(statement, str) and SETS_FOR_TRANSACTION.match(statement)):
            self.is_altered = True

    def has_ended(self) -> bool:
        """Whether the server has ended this idle connection. A server sends nothing on an idle connection except its
        end, so data to read means that. Polling the socket costs no round trip.
        """
        return bool(self._poll.poll(0))
