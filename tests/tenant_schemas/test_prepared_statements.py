"""Statements run without psycopg's cursor do what they do with it: values, errors, preparation, cancellation."""

import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Timer
from time import monotonic
from types import FrameType
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import pq
from psycopg.types.json import Jsonb

from tenant_schemas import prepared_statements
from tenant_schemas.connections import Connections, Limits
from tenant_schemas.search_path import BindingEngine
from tenant_schemas.testing.plugin import Database
from tests.factories.messages import sent_by

PID = "SELECT pg_backend_pid()"
PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'tenant_schemas_%%'"
STATEMENTS_SENT_BY_ONE = ["Bind", "Describe", "Execute", "Sync"]


@pytest.fixture
def connections(database: Database) -> Iterator[Connections]:
    """One connection, so that the next statement gets the connection of the previous one."""
    connections = Connections(database.app_url, database.tenant_secret, Limits(max_connections=1, wait_seconds=0.5))
    yield connections
    connections.close()


@pytest.fixture
def engine(connections: Connections, database: Database) -> BindingEngine:
    """Of a tenant, with its connection open."""
    engine = connections.engine(database.tenant("eur"))
    engine.one_statement("SELECT 1", ())
    return engine


def pid_of(engine: BindingEngine) -> int:
    return engine.one_statement(PID, ())[0][0]


def kinds(exchanges: list[list[str]]) -> list[list[str]]:
    """The names of the messages of each exchange."""
    return [[message.split("\t")[0] for message in exchange] for exchange in exchanges]


# Values.

VALUES: dict[str, list[Any]] = {
    "text": ["x", "", "é€😀", "100 %", None],
    "int": [0, -1, 2**15, 2**31 - 1],
    "bigint": [2**40, -(2**63)],
    "numeric": [Decimal("1.230"), Decimal("1e50")],
    "bool": [True, False, None],
    "uuid": [uuid4(), None],
    "bytea": [b"", b"\x00\xff"],
    "timestamptz": [datetime.now(UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)],
    "interval": [timedelta(days=3, seconds=5)],
    "text[]": [["a", None, "b"], []],
    "jsonb": [Jsonb({"a": [1, None]}), Jsonb(None)],
}


@pytest.mark.parametrize("type_", VALUES)
def test_each_type_is_sent_and_read_as_by_psycopgs_cursor(engine: BindingEngine, type_: str) -> None:
    """Unprepared and prepared: each value is sent eight times."""
    query: Any = f"SELECT %(x)s::{type_}"
    for value in VALUES[type_]:
        with engine.connect() as connection:
            (expected,) = connection.connection.cursor().execute(query, {"x": value}).fetchone()  # type: ignore[attr-defined]
        for _ in range(8):
            ((found,),) = engine.one_statement(query, {"x": value})
            assert (found, type(found)) == (expected, type(expected))


def test_parameters_are_named_or_in_order_and_repeat(engine: BindingEngine) -> None:
    named = "SELECT %(b)s::int, %(a)s::text, %(b)s::int, '100 %%'"
    assert engine.one_statement(named, {"a": "x", "b": 1, "unused": 2}) == [(1, "x", 1, "100 %")]
    assert engine.one_statement("SELECT %s::int, %s::text", (1, "x")) == [(1, "x")]
    for number in (1, 70_000, 2**40, None, 2):  # psycopg gives each size of number a type of its own.
        assert engine.one_statement("SELECT %s::bigint", (number,)) == [(number,)]


@pytest.mark.parametrize(
    ("params", "error"),
    [({"a": 1}, psycopg.ProgrammingError), ((1,), psycopg.ProgrammingError), ((1, 2), TypeError)],
)
def test_wrong_parameters_are_refused_before_anything_is_sent(
    engine: BindingEngine, params: Any, error: type[Exception]
) -> None:
    for _ in range(2):
        with sent_by(engine) as exchanges, pytest.raises(error):
            engine.one_statement("SELECT %(a)s::int, %(b)s::int", params)
        assert exchanges == []
    assert engine.one_statement("SELECT %(a)s::int, %(b)s::int", {"a": 1, "b": 2}) == [(1, 2)]


def test_rows_none_one_and_many_and_columns_none(engine: BindingEngine) -> None:
    query = "SELECT number FROM generate_series(1, %s) AS number"
    for count in (0, 1, 1000):
        assert engine.one_statement(query, (count,)) == [(number + 1,) for number in range(count)]
    assert engine.one_statement("SELECT", ()) == [()]
    assert engine.one_statement("", ()) == []


# Errors.


def test_errors_are_psycopgs_with_their_fields(connections: Connections) -> None:
    """Unprepared and prepared."""
    for _ in range(8):
        with pytest.raises(psycopg.errors.NotNullViolation) as raised:
            connections.shared.one_statement(
                "INSERT INTO shared.users (email, name) VALUES (%s, NULL)", (str(uuid4()),)
            )
        error = raised.value
        assert (error.sqlstate, error.diag.table_name, error.diag.column_name) == ("23502", "users", "name")
    assert connections.shared.one_statement("SELECT 1", ()) == [(1,)]


@pytest.mark.parametrize("copy", ["COPY (SELECT 1) TO STDOUT", "COPY (SELECT 1) FROM STDIN", "COPY wallets FROM STDIN"])
def test_copy_is_refused_and_leaves_no_connection_in_copy_mode(engine: BindingEngine, copy: Any) -> None:
    with pytest.raises(psycopg.Error):
        engine.one_statement(copy, ())
    assert engine.one_statement("SELECT 1", ()) == [(1,)]


# Preparation.


def test_a_prepared_statement_is_sent_by_its_name(engine: BindingEngine) -> None:
    for number in range(6):
        engine.one_statement("SELECT %s::int", (number,))
    with sent_by(engine) as exchanges:
        engine.one_statement("SELECT %s::int", (7,))
    assert kinds(exchanges) == [STATEMENTS_SENT_BY_ONE]
    assert engine.one_statement(PREPARED, ()) == [(1,)]


@pytest.mark.parametrize("loss", ["DEALLOCATE ALL", "DISCARD ALL"])
def test_a_prepared_statement_that_the_server_lost_runs_and_is_prepared_anew(engine: BindingEngine, loss: Any) -> None:
    for number in range(20):
        if number in {8, 12}:
            engine.one_statement(loss, ())
        assert engine.one_statement("SELECT %s::int", (number,)) == [(number,)]
    with sent_by(engine) as exchanges:
        engine.one_statement("SELECT %s::int", (20,))
    assert kinds(exchanges) == [STATEMENTS_SENT_BY_ONE]


def test_a_rollback_costs_prepared_statements_no_failed_exchange(engine: BindingEngine) -> None:
    """After a ROLLBACK psycopg deallocates all statements, if it has prepared any itself."""
    for number in range(8):
        engine.one_statement("SELECT %s::int", (number,))
        with engine.begin() as connection:
            connection.exec_driver_sql("SELECT 1")
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        connection.rollback()
    with sent_by(engine) as exchanges:
        engine.one_statement("SELECT %s::int", (9,))
    assert kinds(exchanges) == [["Parse", "Sync"], STATEMENTS_SENT_BY_ONE]


def test_a_prepared_statement_whose_columns_changed_runs_and_is_prepared_anew(fresh_database: Database) -> None:
    """As after a migration. PostgreSQL would refuse it for ever: «cached plan must not change result type»."""
    connections = Connections(fresh_database.app_url, fresh_database.tenant_secret, Limits(max_connections=1))
    engine = connections.engine(fresh_database.tenant("eur"))
    superuser = fresh_database.as_superuser()
    for number in range(12):
        if number % 4 == 3:
            superuser.execute(f"ALTER TABLE eur_schema.ledger_accounts ADD COLUMN new_{number} int")  # type: ignore[arg-type]
        engine.one_statement("SELECT * FROM ledger_accounts LIMIT %s", (1,))
    row = engine.one_statement("SELECT * FROM ledger_accounts LIMIT %s", (1,))
    assert len(row[0]) == len(engine.one_statement("SELECT * FROM ledger_accounts LIMIT 1", ())[0])
    connections.close()


def test_a_session_prepares_a_limited_number_of_statements(
    engine: BindingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared_statements, "MOST_REMEMBERED", 3)
    for number in range(6):
        query: Any = f"SELECT {number}"
        for _ in range(8):
            assert engine.one_statement(query, ()) == [(number,)]
    ((count,),) = engine.one_statement(PREPARED, ())
    assert 0 < count <= 3


def test_in_a_session_that_tenants_share_nothing_is_prepared(database: Database) -> None:
    limits = Limits(max_connections=1)
    connections = Connections(database.app_url, database.tenant_secret, limits, pool_role=database.roles.pool)
    engine = connections.engine(database.tenant("eur"))
    for number in range(8):
        assert engine.one_statement("SELECT %s::int", (number,)) == [(number,)]
    assert engine.one_statement("SELECT count(*) FROM pg_prepared_statements", ()) == [(0,)]
    connections.close()


def test_a_prepared_statement_makes_few_python_calls(engine: BindingEngine) -> None:
    """47 when this was written, the pool's included. With SQLAlchemy's proxy and psycopg's cursor there were 111."""
    calls: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            calls.append(frame.f_code.co_qualname)

    for number in range(8):
        engine.one_statement("SELECT %s::int", (number,))
    sys.setprofile(note)
    try:
        engine.one_statement("SELECT %s::int", (9,))
    finally:
        sys.setprofile(None)
    assert len(calls) <= 60, calls


# Interruption.


def test_ctrl_c_cancels_the_statement_on_the_server(engine: BindingEngine, database: Database) -> None:
    """And the connection is usable or replaced."""
    pid = pid_of(engine)
    timer = Timer(0.3, signal.raise_signal, (signal.SIGINT,))
    begun = monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        engine.one_statement("SELECT pg_sleep(20)", ())
    assert monotonic() - begun < 10
    query = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
    assert database.as_superuser().execute(query, (pid,)).fetchone() == (0,)
    assert engine.one_statement("SELECT 1", ()) == [(1,)]


def test_a_statement_left_unfinished_costs_its_connection_and_no_place(
    engine: BindingEngine, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a greenlet is killed while it waits: psycopg does not cancel then."""

    class Killed(BaseException):
        """Raised in the middle of a wait."""

    def killed(self: psycopg.Connection[Any], generator: Any, *_: Any) -> Any:
        next(generator)
        raise Killed

    for _ in range(2):
        pid = pid_of(engine)
        with monkeypatch.context() as patch:
            patch.setattr(psycopg.Connection, "wait", killed)
            with pytest.raises(Killed):
                engine.one_statement("SELECT pg_sleep(1)", ())
        assert pid_of(engine) != pid
    assert connections.open_count == 1


def test_the_time_out_ends_a_statement_and_keeps_the_connection(database: Database) -> None:
    limits = Limits(max_connections=1, statement_timeout_ms=200)
    connections = Connections(database.app_url, database.tenant_secret, limits)
    engine = connections.engine(database.tenant("eur"))
    pid = pid_of(engine)
    for _ in range(7):
        with pytest.raises(psycopg.errors.QueryCanceled):
            engine.one_statement("SELECT pg_sleep(%s)", (5,))
    assert pid_of(engine) == pid
    connections.close()


def test_while_a_statement_runs_other_threads_go_on(database: Database) -> None:
    connections = Connections(database.app_url, database.tenant_secret, Limits(max_connections=4))
    engine = connections.engine(database.tenant("eur"))
    begun = monotonic()
    with ThreadPoolExecutor(2) as pool:
        for finished in [pool.submit(engine.one_statement, "SELECT pg_sleep(1)", ()) for _ in range(2)]:
            finished.result()
    assert monotonic() - begun < 1.9
    connections.close()


def test_a_begin_left_open_is_rolled_back_when_the_connection_comes_back(engine: BindingEngine) -> None:
    engine.one_statement("BEGIN", ())
    with engine.connect() as connection:
        status = connection.connection.driver_connection.info.transaction_status  # type: ignore[union-attr]
    assert status is pq.TransactionStatus.IDLE
