"""Streams through gunicorn: clients disconnect, streams break, and nothing stays behind."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.app.statements.conftest import END, START, Book, fill
from tests.factories.served import PATIENCE_SECONDS, served

MOVEMENTS = 60_000  # 12 MB and more, which no buffer on the way holds.


@pytest.fixture
def book(fresh_app: Flask, fresh_database: Database) -> Book:
    book = Book(fresh_app)
    fill(fresh_database, book, MOVEMENTS)
    return book


@pytest.fixture
def client(book: Book, fresh_database: Database, tmp_path: Path) -> Iterator[httpx.Client]:
    """The member, talking to gunicorn."""
    headers = {"Authorization": f"Bearer {book.member.token}", "X-Tenant": "eur"}
    with (
        served(fresh_database, tmp_path / "log", "--threads", "2") as url,
        httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_SECONDS) as client,
    ):
        yield client


def states(database: Database) -> list[str]:
    """The states of the tenant's connections."""
    query = "SELECT state FROM pg_stat_activity WHERE usename = 'tenant_eur' AND datname = %s"
    return [state for (state,) in database.as_superuser().execute(query, (database.name,))]


def wait_for(database: Database, expected: list[str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while states(database) != expected:
        assert time.monotonic() < deadline, states(database)
        time.sleep(0.05)


PATHS = {"json": "/api/wallet/statement", "csv": "/api/wallet/statement.csv"}
PERIOD = {"from": START, "to": END}


@pytest.mark.parametrize("form", ["json", "csv"])
def test_clients_that_go_away_halfway_leave_one_clean_connection_behind(
    book: Book, client: httpx.Client, fresh_database: Database, form: str
) -> None:
    book.app.extensions["tenant_schemas"].close()  # What is left are the server's.
    for _ in range(3):
        with client.stream("GET", PATHS[form], params=PERIOD) as answer:
            assert answer.status_code == 200
            pieces = answer.iter_raw()
            next(pieces)
            wait_for(fresh_database, ["idle in transaction"])
        wait_for(fresh_database, ["idle"])
    whole = client.get("/api/wallet/statement", params=PERIOD)
    assert len(orjson.loads(whole.content)["movements"]) == MOVEMENTS
    paid = client.post("/api/wallet/payments", json={"amount": "1.00"}, headers={"Idempotency-Key": "k"})
    assert paid.status_code == 201
    assert states(fresh_database) == ["idle"]


def test_a_stream_that_breaks_has_no_end_so_that_the_client_sees_it(
    book: Book, client: httpx.Client, fresh_database: Database
) -> None:
    book.app.extensions["tenant_schemas"].close()
    superuser = fresh_database.as_superuser()
    superuser.execute("SET session_replication_role = replica")
    superuser.execute(b"UPDATE eur_schema.wallet_transactions SET amount_minor = 2 WHERE seq = 59000")
    with client.stream("GET", PATHS["csv"], params=PERIOD) as answer:
        assert (answer.status_code, answer.headers["Transfer-Encoding"]) == (200, "chunked")
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()
    wait_for(fresh_database, ["idle"])
