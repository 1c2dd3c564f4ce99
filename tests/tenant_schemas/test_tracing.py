"""Every db transaction of a traced thread has the tracer's setting, LOCAL to it, at no further exchange."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import sleep

import psycopg
import pytest
import sqlalchemy as sa

from tenant_schemas.connections import Connections, Limits
from tenant_schemas.search_path import BindingEngine
from tenant_schemas.testing.plugin import Database
from tenant_schemas.tracing import TRACING
from tests.factories.messages import sent_by

SETTING = "wallet.traceparent"
TOLD = f"SELECT nullif(current_setting('{SETTING}', true), '')"


# Ends the session with this pid.
ENDED = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"


class Tracer:
    """Has a value for the thread, and notes the statements."""

    def __init__(self) -> None:
        self.value: str | None = "it's traced"
        self.statements: list[str] = []

    def transaction_setting(self) -> tuple[str, str] | None:
        return None if self.value is None else (SETTING, self.value)

    @contextmanager
    def statement(self, text: str) -> Iterator[None]:
        self.statements.append(text)
        yield


@pytest.fixture
def tracer(monkeypatch: pytest.MonkeyPatch) -> Tracer:
    tracer = Tracer()
    monkeypatch.setattr(TRACING, "tracer", tracer)
    return tracer


@pytest.fixture(params=["own", "shared"])
def engine(request: pytest.FixtureRequest, database: Database) -> Iterator[BindingEngine]:
    """Of a tenant, with one connection."""
    pool_role = database.roles.pool if request.param == "shared" else None
    limits = Limits(max_connections=1, wait_seconds=0.5)
    connections = Connections(database.app_url, database.tenant_secret, limits, pool_role=pool_role)
    yield connections.engine(database.tenant("eur"))
    connections.close()


def told(engine: BindingEngine) -> str | None:
    return engine.one_statement(TOLD, ())[0][0]


def test_a_single_statement_has_it_and_the_next_one_without_a_trace_has_not(
    engine: BindingEngine, tracer: Tracer
) -> None:
    for _ in range(8):  # Then it is prepared.
        tracer.value = "it's traced"
        assert told(engine) == "it's traced"
        tracer.value = None
        assert told(engine) is None
    assert tracer.statements.count(TOLD) == 16


def test_it_takes_no_exchange_more(engine: BindingEngine, tracer: Tracer) -> None:
    counts = []
    for value in (None, "traced"):
        tracer.value = value
        for _ in range(7):
            told(engine)
        with sent_by(engine) as sent:
            told(engine)
        counts.append(len(sent))
    assert counts[0] == counts[1]


@pytest.mark.both_servers
def test_the_server_warns_of_nothing(engine: BindingEngine, tracer: Tracer) -> None:
    notices: list[str | None] = []
    with engine.connect() as connection:
        driver_connection = connection.connection.driver_connection
        assert driver_connection is not None
        driver_connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    assert told(engine) == "it's traced"
    assert notices == []


def test_a_session_has_it_in_its_db_transaction(engine: BindingEngine, tracer: Tracer) -> None:
    with engine.begin() as connection:
        assert connection.execute(sa.text(TOLD)).scalar() == "it's traced"
    tracer.value = None
    with engine.begin() as connection:
        assert connection.execute(sa.text(TOLD)).scalar() is None


def test_a_deferred_db_transaction_has_it(engine: BindingEngine, tracer: Tracer) -> None:
    with engine.reading.begin() as connection:
        assert connection.execute(sa.text(TOLD)).scalar() == "it's traced"


def test_an_error_is_the_statements_own_and_the_connection_stays_in_use(engine: BindingEngine, tracer: Tracer) -> None:
    pid = engine.one_statement("SELECT pg_backend_pid()", ())
    for _ in range(7):
        with pytest.raises(psycopg.errors.DivisionByZero):
            engine.one_statement("SELECT 1 / %s::int", (0,))
    assert engine.one_statement("SELECT pg_backend_pid()", ()) == pid
    assert engine.one_statement("SELECT %s::int", (7,)) == [(7,)]


def test_a_prepared_statement_that_the_server_lost_runs_and_is_prepared_anew(
    engine: BindingEngine, tracer: Tracer
) -> None:
    for number in range(20):
        if number in {8, 12}:
            engine.one_statement("DEALLOCATE ALL", ())
        assert engine.one_statement("SELECT %s::int", (number,)) == [(number,)]


def test_a_connection_that_breaks_is_replaced(engine: BindingEngine, database: Database, tracer: Tracer) -> None:
    ((pid,),) = engine.one_statement("SELECT pg_backend_pid()", ())
    with ThreadPoolExecutor(1) as pool:
        sleeping = pool.submit(engine.one_statement, "SELECT pg_sleep(30)", ())
        while not database.as_superuser().execute(f"{ENDED} AND query LIKE '%%pg_sleep%%'", (pid,)).fetchone():
            sleep(0.01)
        with pytest.raises(psycopg.OperationalError):
            sleeping.result()
    assert engine.one_statement("SELECT pg_backend_pid()", ()) != [(pid,)]


def test_only_its_own_thread_is_traced(tracer: Tracer) -> None:
    assert TRACING.is_on_for_this_thread()
    tracer.value = None
    assert not TRACING.is_on_for_this_thread()
