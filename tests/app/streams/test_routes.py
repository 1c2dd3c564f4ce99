"""Event streams of the served application, read as a browser reads them."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from flask import Flask

from app.ledger.service import post
from app.streams.places import PER_CALLER
from tenant_schemas.testing.plugin import Database
from tests.factories.application import running
from tests.factories.feed import Feed, in_tenant, movement
from tests.factories.people import People, Person
from tests.factories.served import served

PATIENCE_SECONDS = 10


@dataclass
class Message:
    """A message of a stream, as an EventSource gives it out."""

    id: str
    event: str
    data: dict[str, Any] = field(default_factory=dict)


class Stream:
    """An open stream."""

    def __init__(self, response: httpx.Response) -> None:
        assert response.status_code == 200, response.read()
        self.response = response
        self._lines = response.iter_lines()
        self.last_id = ""

    def next(self) -> Message:
        """The next message with data. Raises StopIteration if the stream ends first."""
        told: dict[str, str] = {}
        while True:
            line = next(self._lines)
            name, _, value = line.partition(": ")
            if line:
                told[name] = value
                continue
            self.last_id = told.get("id", self.last_id)
            if "data" in told:
                return Message(self.last_id, told["event"], json.loads(told["data"]))
            told = {}

    def ends(self) -> bool:
        try:
            while True:
                self.next()
        except StopIteration:
            return True


@pytest.fixture(scope="module")
def log_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served") / "log"


@pytest.fixture(scope="module")
def url(database: Database, log_path: Path) -> Iterator[str]:
    worker = ("--worker-class", "app.gunicorn_worker.BufferedWorker", "--threads", "40")
    with served(database, log_path, *worker, EVENT_STREAMS="20", TOKEN_SECONDS="900") as url:
        yield url


@pytest.fixture
def people(app: Flask) -> People:
    return People(app)


@pytest.fixture
def feed(app: Flask) -> Feed:
    return Feed(app, "eur")


@contextmanager
def listening(url: str, path: str, person: Person, tenant: str = "eur", **headers: str) -> Iterator[Stream]:
    headers |= {"Authorization": f"Bearer {person.token}", "X-Tenant": tenant}
    with httpx.stream("GET", f"{url}{path}", headers=headers, timeout=PATIENCE_SECONDS) as response:
        yield Stream(response)


def pay(app: Flask, wallet_id: UUID, slug: str = "eur") -> str:
    """One payment, numbered as a relay would. The event's id."""
    with in_tenant(app, slug):
        posted, _ = post(wallet_id, movement("payment", 1))
    Feed(app, slug).stamp()
    return str(posted.id)


def test_a_member_sees_the_own_movements_as_they_happen_and_no_one_elses(app: Flask, url: str, people: People) -> None:
    own, other = people.make(eur="member", km="member"), people.make(eur="member")
    wallet_id = people.wallet(own, "eur", balance_minor=100)
    others = people.wallet(other, "eur", balance_minor=100)
    elsewhere = people.wallet(own, "km", balance_minor=100)
    Feed(app, "eur").stamp()
    with listening(url, "/api/wallet/events", own) as stream:
        pay(app, others)
        pay(app, elsewhere, "km")
        mine = pay(app, wallet_id)
        message = stream.next()
        assert (message.event, message.data["id"]) == ("wallet.payment.posted.v1", mine)
        assert message.data["data"]["balanceAfter"] == "0.99"
        assert stream.response.headers["Content-Type"] == "text/event-stream"
        assert stream.response.headers["X-Accel-Buffering"] == "no"
        assert stream.response.headers["Cache-Control"] == "no-store"


def test_staff_see_their_tenants_events_and_no_other_tenants(app: Flask, url: str, people: People) -> None:
    member, auditor = people.make(eur="member", km="member"), people.make(eur="auditor", km="auditor")
    here, elsewhere = (people.wallet(member, slug, balance_minor=100) for slug in ("eur", "km"))
    Feed(app, "eur").stamp()
    with listening(url, "/api/admin/events/stream", auditor) as stream:
        pay(app, elsewhere, "km")
        paid = pay(app, here)
        assert stream.next().data["id"] == paid


def test_a_member_without_a_wallet_sees_it_open(app: Flask, url: str, people: People) -> None:
    person = people.make(eur="member")
    Feed(app, "eur").stamp()
    with listening(url, "/api/wallet/events", person) as stream:
        people.wallet(person, "eur", balance_minor=100)
        Feed(app, "eur").stamp()
        assert [stream.next().event for _ in range(2)] == ["wallet.opened.v1", "wallet.deposit.posted.v1"]


def test_a_stream_goes_on_after_the_last_event_that_its_client_has(app: Flask, url: str, people: People) -> None:
    admin, person = people.make(eur="admin"), people.make(eur="member")
    wallet_id = people.wallet(person, "eur", balance_minor=100)
    Feed(app, "eur").stamp()
    path = f"/api/admin/events/stream?walletId={wallet_id}"
    with listening(url, path, admin) as stream:
        first = pay(app, wallet_id)
        message = stream.next()
        assert message.data["id"] == first
    missed = [pay(app, wallet_id), pay(app, wallet_id)]
    with listening(url, path, admin, **{"Last-Event-ID": message.id}) as stream:
        assert [stream.next().data["id"] for _ in missed] == missed
        now = pay(app, wallet_id)
        assert stream.next().data["id"] == now
    with listening(url, f"{path}&after={message.id}&types=wallet.payment.posted.v1", admin) as stream:
        assert stream.next().data["id"] == missed[0]


def test_a_cursor_of_another_feed_begins_with_resync(url: str, people: People, feed: Feed) -> None:
    admin = people.make(eur="admin")
    with listening(url, "/api/admin/events/stream", admin, **{"Last-Event-ID": f"{'0' * 32}-1"}) as stream:
        message = stream.next()
        assert (message.event, message.data) == ("resync", {"reason": "feed_changed"})
        assert message.id == f"{feed.head().feed_id.hex}-{feed.head().position}"


@pytest.mark.parametrize(
    ("role", "path", "status"),
    [
        ("member", "/api/admin/events/stream", 403),
        ("auditor", "/api/wallet/events", 403),
        ("member", "/api/wallet/events?after=nonsense", 422),
        ("member", "/api/wallet/events?types=nonsense", 422),
    ],
)
def test_who_may_not_listen_or_asks_for_nonsense_is_refused(
    url: str, people: People, role: str, path: str, status: int
) -> None:
    person = people.make(eur=role)
    headers = {"Authorization": f"Bearer {person.token}", "X-Tenant": "eur"}
    answer = httpx.get(f"{url}{path}", headers=headers)
    assert answer.status_code == status, answer.text


def test_a_caller_has_few_streams_and_no_slot_is_held_by_them(app: Flask, url: str, people: People) -> None:
    person = people.make(eur="member")
    headers = {"Authorization": f"Bearer {person.token}", "X-Tenant": "eur"}
    streams = [listening(url, "/api/wallet/events", person) for _ in range(PER_CALLER)]
    for stream in streams:
        stream.__enter__()
    try:
        refused = httpx.get(f"{url}/api/wallet/events", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
        answers = [httpx.get(f"{url}/api/wallet", headers=headers) for _ in range(12)]
        assert {answer.status_code for answer in answers} == {200}
    finally:
        for stream in streams:
            stream.__exit__(None, None, None)
    assert _is_accepted(url, headers), "the streams of clients that have gone are over"


def test_a_client_that_sent_more_and_went_away_is_noticed(url: str, people: People) -> None:
    person = people.make(eur="member")
    headers = {"Authorization": f"Bearer {person.token}", "X-Tenant": "eur"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    for _ in range(PER_CALLER):
        with socket.create_connection((httpx.URL(url).host, httpx.URL(url).port or 0), PATIENCE_SECONDS) as client:
            client.sendall(f"GET /api/wallet/events HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
            assert client.recv(15) == b"HTTP/1.1 200 OK"
            client.sendall(b"x")
            client.shutdown(socket.SHUT_WR)
            assert _ends(client), "the stream goes on for a client that has closed its side"


def _ends(client: socket.socket) -> bool:
    client.settimeout(PATIENCE_SECONDS)
    try:
        while client.recv(4096):
            continue
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True
    return True


def _is_accepted(url: str, headers: dict[str, str]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with httpx.stream("GET", f"{url}/api/wallet/events", headers=headers, timeout=PATIENCE_SECONDS) as response:
            if response.status_code == 200:
                return True
        time.sleep(0.1)
    return False


def test_streams_end_when_the_process_is_told_to_stop(fresh_database: Database, tmp_path: Path) -> None:
    with running(fresh_database) as app:
        person = People(app).make(eur="member")
    worker = ("--worker-class", "app.gunicorn_worker.BufferedWorker", "--threads", "4", "--pid", str(tmp_path / "pid"))
    with (
        served(fresh_database, tmp_path / "log", *worker) as url,
        listening(url, "/api/wallet/events", person) as stream,
    ):
        started = time.monotonic()
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
        assert stream.ends()
        assert time.monotonic() - started < PATIENCE_SECONDS
