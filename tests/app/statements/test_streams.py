"""Streams: constant memory, one snapshot, and a connection that always returns clean."""

import gc
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from time import sleep
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from flask import Flask

from app.ledger.history import Filters
from app.statements import json, service, streams
from tenant_schemas.context import current_tenant
from tenant_schemas.errors import NotBound
from tenant_schemas.flask import EXTENSION, connections, tenant_context
from tenant_schemas.testing.plugin import Database
from tests.app.statements.conftest import Book, fill

MOVEMENTS = 10_000


@pytest.fixture
def long_book(fresh_app: Flask, fresh_database: Database) -> Book:
    """More movements than a few batches and a socket's buffer hold."""
    book = Book(fresh_app)
    fill(fresh_database, book, 5_000)
    return book


def backends(database: Database) -> list[tuple[str, str]]:
    """The states of the tenant's connections."""
    query = "SELECT state, query FROM pg_stat_activity WHERE usename = 'tenant_eur' AND datname = %s"
    return database.as_superuser().execute(query, (database.name,)).fetchall()  # type: ignore[return-value]


def assert_nothing_is_left(book: Book, database: Database) -> None:
    """The tenant's only connection is idle, in no db transaction, and the next request writes and reads with it."""
    assert [state for state, _ in backends(database)] == ["idle"]
    book.post("deposit", 1)
    with book.app.app_context(), tenant_context("eur") as tenant, connections().engine(tenant).connect() as connection:
        names = ("transaction_isolation", "transaction_read_only", "idle_in_transaction_session_timeout")
        left = [connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names]
        assert left == ["read committed", "off", "1min"]
        assert connection.exec_driver_sql("SELECT count(*) FROM pg_cursors WHERE name <> ''").scalar_one() == 0
    assert book.app.extensions[EXTENSION].open_count == 2  # shared and eur


def first_pieces(answer: Any, count: int = 2) -> list[bytes]:
    pieces: Iterator[bytes] = answer.iter_encoded()
    return [next(pieces) for _ in range(count)]


@pytest.mark.parametrize("form", ["json", "csv"])
def test_a_statement_of_any_length_takes_the_same_memory(fresh_app: Flask, fresh_database: Database, form: str) -> None:
    book = Book(fresh_app)
    fill(fresh_database, book, MOVEMENTS)
    book.ask(format=form, end="2020-01-01T01:00:00Z")  # warm
    answer = book.ask(format=form, buffered=False)
    tracemalloc.start()
    size, last = 0, b""
    for piece in answer.iter_encoded():
        size, last = size + len(piece), piece
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    answer.close()
    assert size > 150 * MOVEMENTS
    assert f"{MOVEMENTS // 100}.00".encode() in last
    assert peak < 2_000_000


@pytest.mark.parametrize("form", ["json", "csv", "export"])
def test_rows_wait_in_postgresql_until_they_are_sent(long_book: Book, fresh_database: Database, form: str) -> None:
    if form == "export":
        answer = long_book.api.get("/api/admin/transactions.csv", long_book.admin, "eur", buffered=False)
    else:
        answer = long_book.ask(format=form, buffered=False)
    sent = b"".join(first_pieces(answer))
    assert sent.count(b"movement ") == streams.BATCH
    assert [(state, query[:13]) for state, query in backends(fresh_database)] == [
        ("idle in transaction", "FETCH FORWARD")
    ]
    answer.close()


@pytest.mark.parametrize(("form", "pieces"), [("json", 0), ("json", 1), ("json", 2), ("csv", 2)])
def test_a_client_that_goes_away_halfway_leaves_a_clean_connection_behind(
    long_book: Book, fresh_database: Database, form: str, pieces: int
) -> None:
    answer = long_book.ask(format=form, buffered=False)
    first_pieces(answer, pieces)
    answer.close()
    assert_nothing_is_left(long_book, fresh_database)


def test_an_export_that_is_cut_off_leaves_a_clean_connection_behind(long_book: Book, fresh_database: Database) -> None:
    answer = long_book.api.get("/api/admin/transactions.csv", long_book.admin, "eur", buffered=False)
    first_pieces(answer)
    answer.close()
    assert_nothing_is_left(long_book, fresh_database)


def test_a_stream_that_nobody_closes_leaves_a_clean_connection_behind(
    long_book: Book, fresh_database: Database
) -> None:
    with long_book.app.app_context(), tenant_context("eur"):
        stream = service.stream_transactions(lambda found: (b"piece" for _ in found), Filters())
    next(stream)
    del stream
    gc.collect()
    assert_nothing_is_left(long_book, fresh_database)


def test_a_head_request_reads_nothing_and_keeps_nothing(long_book: Book, fresh_database: Database) -> None:
    query = {"from": "2020-01-01T00:00:00Z", "to": "2021-01-01T00:00:00Z"}
    path = "/api/wallet/statement"
    answer = long_book.api.send("HEAD", path, long_book.member, "eur", query_string=query)
    assert (answer.status_code, answer.data) == (200, b"")
    assert_nothing_is_left(long_book, fresh_database)


@pytest.mark.parametrize("returns", [False, True])
def test_a_tenant_that_is_suspended_meanwhile_gets_its_statement_whole_and_leaves_nothing_behind(
    long_book: Book, fresh_database: Database, returns: bool
) -> None:
    """An admitted request is answered. A changed registry row retires older connections when they return."""
    superuser = fresh_database.as_superuser()
    answer = long_book.ask(buffered=False)
    pieces = answer.iter_encoded()
    begun = next(pieces)
    superuser.execute("UPDATE shared.tenants SET status = 'suspended' WHERE slug = 'eur'")
    assert long_book.ask().status_code == 404
    if returns:
        superuser.execute("UPDATE shared.tenants SET status = 'active', name = 'renamed' WHERE slug = 'eur'")
        assert long_book.ask().status_code == 200
        assert len(backends(fresh_database)) == 2
    assert orjson.loads(begun + b"".join(pieces))["closingBalance"] == "50.00"
    answer.close()
    assert [state for state, _ in backends(fresh_database)] == ["idle"]
    assert long_book.app.extensions[EXTENSION].open_count == 2  # shared and eur


def test_money_that_moves_meanwhile_is_not_in_the_statement(long_book: Book) -> None:
    answer = long_book.ask(buffered=False)
    pieces = answer.iter_encoded()
    begun = next(pieces)
    long_book.post("deposit", 100)
    shown = orjson.loads(begun + b"".join(pieces))
    answer.close()
    assert (len(shown["movements"]), shown["closingBalance"]) == (5_000, "50.00")
    sums = sum(float(line["amount"]) for line in shown["movements"])
    assert round(sums, 2) == 50.00


BREAKS = {
    "an amount": "UPDATE eur_schema.wallet_transactions SET amount_minor = 2 WHERE seq = 4000",
    "a row": "DELETE FROM eur_schema.wallet_transactions WHERE seq = 4000",
    "the last row's number": "UPDATE eur_schema.wallet_transactions SET seq = 5001 WHERE seq = 5000",
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_ledger_that_does_not_add_up_breaks_the_stream_off_before_its_end(
    long_book: Book, fresh_database: Database, what: str
) -> None:
    superuser = fresh_database.as_superuser()
    superuser.execute("SET session_replication_role = replica")
    superuser.execute(BREAKS[what].encode())
    answer = long_book.ask(buffered=False)
    sent = b""
    with pytest.raises(service.StatementBroken):  # noqa: PT012
        for piece in answer.iter_encoded():
            sent += piece
    answer.close()
    assert b'"seq":3000' in sent
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(sent)
    assert b"closingBalance" not in sent
    assert [state for state, _ in backends(fresh_database)] == ["idle"]


@pytest.mark.parametrize("reason", ["terminated", "stalled"])
def test_a_connection_lost_on_the_way_breaks_the_stream_off_and_the_next_request_gets_another(
    long_book: Book, fresh_database: Database, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    monkeypatch.setattr(streams, "STALLED_CLIENT_SECONDS", 0.1 if reason == "stalled" else 60)
    answer = long_book.ask(buffered=False)
    pieces = answer.iter_encoded()
    next(pieces)
    if reason == "terminated":
        fresh_database.as_superuser().execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'tenant_eur'"
            " AND datname = current_database()"
        )
    else:
        sleep(0.4)
    with pytest.raises(sa.exc.DBAPIError, match="terminating connection"):
        b"".join(pieces)
    answer.close()
    long_book.post("deposit", 1)
    assert_nothing_is_left(long_book, fresh_database)


def test_what_goes_wrong_before_the_first_piece_is_a_problem_with_a_status(
    fresh_app: Flask, fresh_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = Book(fresh_app)
    book.post("deposit", 1)

    def broken(*_: Any) -> Iterator[bytes]:
        raise service.StatementBroken("test")
        yield b""

    monkeypatch.setattr(json, "statement_pieces", broken)
    answer = book.ask()
    assert (answer.status_code, answer.get_json()["code"]) == (500, "internal_error")
    assert_nothing_is_left(book, fresh_database)


def test_a_stream_has_its_tenant_bound_and_leaves_the_readers_binding_alone(app: Flask) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(2):
            yield current_tenant().slug.encode()

    with app.app_context():
        with tenant_context("eur") as eur:
            stream = streams.BoundStream(eur, pieces())
        with tenant_context("km"):
            assert (next(stream), next(stream)) == (b"eur", b"eur")
            assert current_tenant().slug == "km"
        with pytest.raises(NotBound):
            current_tenant()


def test_a_snapshot_can_write_nothing(app: Flask, book: Book) -> None:
    with app.app_context(), tenant_context("eur") as tenant:
        engine = connections().engine(tenant)
        with pytest.raises(sa.exc.DBAPIError, match="read-only"), streams.snapshot(engine) as connection:
            connection.execute(sa.text("SELECT wallet_configure_v1(:id, 1, :id, 5, null, 'r')"), {"id": book.wallet_id})


def test_the_first_and_the_last_moment_of_a_period_are_asked_in_utc(book: Book) -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    shown = book.statement("2026-01-31T13:00:00+01:00", "2026-01-31T12:00:00.000001Z")
    assert shown["from"] == noon.isoformat().replace("+00:00", ".000000Z")
