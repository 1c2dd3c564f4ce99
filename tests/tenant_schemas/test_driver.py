"""The driver's connection and cursor do what psycopg's do. Deferred BEGIN messages: `test_search_path_messages.py`."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tenant_schemas.driver import DriverConnection, OneStatementCursor
from tenant_schemas.testing.plugin import Database

QUERIES = (
    "SELECT 1 AS one, 'x'::varchar(5) AS text, now() AS at",
    "SELECT",
    "SELECT 1 WHERE false",
    "CREATE TEMP TABLE t ()",
)


@pytest.fixture
def connection(database: Database) -> Iterator[DriverConnection]:
    """Of a superuser, in autocommit mode as all of the engine's connections."""
    with DriverConnection.connect(database.url(), autocommit=True, cursor_factory=OneStatementCursor) as connection:
        yield connection


@pytest.mark.parametrize("query", QUERIES)
def test_the_description_is_psycopgs(connection: DriverConnection, query: Any) -> None:
    """Whole, by index from both ends, and in slices."""
    found = connection.execute(query).description
    connection.execute("DROP TABLE IF EXISTS t")
    used = psycopg.Cursor(connection).execute(query)
    expected = used.description
    assert (found is None) is (expected is None)
    if found is not None and expected is not None:
        assert len(found) == len(expected)
        assert list(map(tuple, found)) == list(map(tuple, expected))
        assert list(map(tuple, found[-2:])) == list(map(tuple, expected[-2:]))
        assert [column.type_display for column in found] == [column.type_display for column in expected]
    if expected:
        assert found
        assert (tuple(found[-1]), found[0].name) == (tuple(expected[-1]), expected[0].name)
        with pytest.raises(IndexError):
            found[len(expected)]


def begin_message(setting: str) -> bytes:
    return f"BEGIN; SET LOCAL lock_timeout TO {setting}".encode()


def test_each_way_to_run_a_statement_sends_the_deferred_begin_first(connection: DriverConnection) -> None:
    def stream() -> None:
        list(connection.cursor().stream("SELECT 1"))

    def copy() -> None:
        with connection.cursor().copy("COPY (SELECT 1) TO STDOUT") as rows:
            list(rows)

    def read_by_server() -> None:
        with connection.cursor("name") as cursor:
            cursor.execute("SELECT 1").fetchall()

    ways = (
        lambda: connection.execute("SELECT 1"),
        lambda: connection.cursor().execute("SELECT 1"),
        lambda: connection.cursor().executemany("SELECT %s::int", [(1,), (2,)]),
        lambda: psycopg.Cursor(connection).execute("SELECT 1"),
        *(stream, copy, read_by_server),
    )
    for way in ways:
        connection.deferred_begin = begin_message("77")
        way()
        assert connection.deferred_begin is None
        assert connection.info.transaction_status is psycopg.pq.TransactionStatus.INTRANS
        assert connection.execute("SHOW lock_timeout").fetchone() == ("77ms",)
        connection.rollback()


def test_no_statement_runs_after_a_deferred_begin_that_failed(connection: DriverConnection) -> None:
    """It stays deferred, so each further statement is refused too, until a ROLLBACK."""
    connection.deferred_begin = begin_message("'never'")
    for _ in range(2):
        with pytest.raises(psycopg.Error):
            connection.execute("CREATE TABLE made_outside ()")
    connection.deferred_begin = None
    connection.rollback()
    assert connection.execute("SELECT to_regclass('made_outside')").fetchone() == (None,)


def test_a_setting_of_the_session_is_noted_and_one_of_the_db_transaction_is_not(connection: DriverConnection) -> None:
    for statement in ("SET LOCAL lock_timeout TO 1", " set  local lock_timeout TO 1", "SET TRANSACTION READ ONLY"):
        connection.note_settings(b"SET", statement)
        assert not connection.is_altered
    connection.note_settings(b"SELECT 1", "SELECT 'SET search_path TO x'")
    assert not connection.is_altered
    for tag, statement in (
        *((b"SET", "SET lock_timeout TO 1"), (b"SET", "/* LOCAL */ SET lock_timeout TO 1")),
        *((b"SET", "SET SESSION lock_timeout TO 1"), (b"RESET", "RESET ALL"), (b"SET", "SET localised.name TO 1")),
    ):
        connection.is_altered = False
        connection.note_settings(tag, statement)
        assert connection.is_altered, statement
