"""Everything that takes part in telling events is killed while wallets pay: the subscriber has every movement exactly
once after it dropped what it had seen, in the order of each wallet, and can prove it by the hashes.
"""

import asyncio
import json
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any, Final
from uuid import UUID, uuid4

import aio_pika
import psycopg
import pytest
import sqlalchemy as sa
from flask import Flask

from app.brokers.publisher import EVENTS
from app.brokers.rabbitmq import RabbitPublisher
from app.ledger.service import post
from tenant_schemas.errors import ConnectionsExhausted
from tenant_schemas.testing.plugin import Database
from tests.conftest import running_app
from tests.factories.brokers import RabbitBroker, needs_rabbitmq
from tests.factories.feed import in_tenant, movement
from tests.factories.people import People
from tests.faults.conftest import LONGEST_SECONDS, Program
from tests.faults.server import KILL_SIGNALS, KillableServer

PAYING: Final = ("t00", "t01", "t02")
WALLETS: Final = 2  # of each tenant
EVENTS_BETWEEN_FAULTS: Final = 20
# The server is away, or has ended the connection.
SERVER_FAULTS: Final = (sa.exc.DBAPIError, psycopg.Error, ConnectionsExhausted)
_UNTOLD: Final = """
    SELECT (SELECT count(*) FROM {0}_schema.events WHERE position IS NULL)
        + (SELECT h.position - coalesce((SELECT c.position FROM {0}_schema.event_cursors c), 0)
            FROM {0}_schema.events_head h)"""
_MOVEMENTS: Final = "SELECT wallet_id, id, seq, encode(hash, 'hex') FROM {0}_schema.wallet_transactions"
_CONNECTIONS: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND (usename = 'wallet_relay' OR usename LIKE 'tenant_%%')"""

pytestmark = needs_rabbitmq


@pytest.fixture
def paying_app(fleet: Database) -> Iterator[Flask]:
    yield from running_app(fleet)


class Payers:
    """One thread for each wallet, with a payment after the other. A payment that fails is made again with its key."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._over = Event()
        people = People(app)
        self._threads = []
        for slug in PAYING:
            for _ in range(WALLETS):
                wallet_id = people.wallet(people.make(**{slug: "member"}), slug, balance_minor=100_000)
                self._threads.append(Thread(target=self._pay, args=(slug, wallet_id)))

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(LONGEST_SECONDS)

    def _pay(self, slug: str, wallet_id: UUID) -> None:
        key = uuid4().hex
        while not self._over.wait(0.03):
            try:
                with in_tenant(self._app, slug):
                    post(wallet_id, movement("payment", 1, key))
            except SERVER_FAULTS:
                continue
            key = uuid4().hex


class Subscriber:
    """The subscriber's program, and the file that it writes."""

    def __init__(self, fleet: Database, broker: RabbitBroker, file: Path) -> None:
        self.broker = broker
        self._fleet, self._file = fleet, file
        self._queue = f"subscriber {uuid4()}"
        publisher = RabbitPublisher(broker.url)
        publisher.publish([])  # It declares the exchange.
        publisher.close()
        asyncio.run(self._make_queue())
        self.start()

    def start(self) -> None:
        self.program = Program(self._fleet, "tests.faults.subscriber", self.broker.url, self._queue, self._file)

    async def _make_queue(self) -> None:
        async with await aio_pika.connect(self.broker.url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(self._queue, durable=True, arguments={"x-single-active-consumer": True})
            for slug in PAYING:
                await queue.bind(EVENTS, f"{self._fleet.tenant(slug).id}.#")

    def delivered(self) -> list[Any]:
        """What was delivered, again and again perhaps, in its order."""
        written = self._file.read_bytes() if self._file.exists() else b""  # It is made with the first event.
        return [json.loads(line) for line in written.splitlines() if line.endswith(b"}")]

    def events(self) -> list[Any]:
        """The events by `source` and `id`, in the order in which each came first."""
        return list({(event["source"], event["id"]): event for event in reversed(self.delivered())}.values())[::-1]


@pytest.fixture
def subscriber(fleet: Database, rabbit_broker: RabbitBroker, tmp_path: Path) -> Subscriber:
    return Subscriber(fleet, rabbit_broker, tmp_path / "events")


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = monotonic() + LONGEST_SECONDS
    while not holds():
        assert monotonic() < deadline
        sleep(0.05)


def kill(program: Program) -> None:
    program.send(signal.SIGKILL)
    program.end()


def end_leases(fleet: Database) -> None:
    """As if half a minute had passed since a relay was killed."""
    with psycopg.connect(fleet.url(), autocommit=True) as superuser:
        for slug in PAYING:
            superuser.execute(f"UPDATE {slug}_schema.event_cursors SET lease_until = '-infinity'".encode())


def untold(fleet: Database) -> int:
    with psycopg.connect(fleet.url(), autocommit=True) as superuser:
        return sum(superuser.execute(_UNTOLD.format(slug).encode()).fetchall()[0][0] for slug in PAYING)


@contextmanager
def relays(fleet: Database, broker: RabbitBroker) -> Iterator[Callable[[], Program]]:
    """A function that starts a relay. In the end each one that runs has drained after SIGTERM."""
    started: list[Program] = []

    def start() -> Program:
        started.append(Program(fleet, "scripts.relay", BROKER_URL=broker.url))
        return started[-1]

    yield start
    running = [program for program in started if program in Program.at_work]
    for program in running:
        program.send(signal.SIGTERM)
    assert [program.end().code for program in running] == [0] * len(running)


def test_every_movement_is_told_once_and_in_order_whatever_is_killed(
    server: KillableServer, fleet: Database, paying_app: Flask, subscriber: Subscriber, moments: Random
) -> None:
    broker = subscriber.broker
    with relays(fleet, broker) as start_relay:
        first, second = start_relay(), start_relay()

        def more_events() -> None:
            count = len(subscriber.events())
            wait_until(lambda: len(subscriber.events()) > count + EVENTS_BETWEEN_FAULTS)
            sleep(0.3 * moments.random())

        with Payers(paying_app):
            more_events()
            broker.kill()
            broker.start()
            kill(first)
            end_leases(fleet)
            start_relay()
            more_events()
            kill(subscriber.program)
            with psycopg.connect(fleet.url(), autocommit=True) as superuser:
                superuser.execute(_CONNECTIONS)
            subscriber.start()
            more_events()
            server.kill(moments.choice(KILL_SIGNALS))
            server.restart()
            more_events()
            kill(second)
            end_leases(fleet)
            more_events()
        wait_until(lambda: untold(fleet) == 0)
    ledger = movements(fleet)
    wait_until(lambda: len({event["id"] for event in subscriber.events()} & ledger.keys()) == len(ledger))
    assert_complete(subscriber.events(), ledger)
    assert len(subscriber.delivered()) >= len(subscriber.events())


def movements(fleet: Database) -> dict[str, tuple[str, int, str]]:
    """Wallet, number and hash of each movement in the ledger."""
    with psycopg.connect(fleet.url(), autocommit=True) as superuser:
        return {
            str(id_): (str(wallet_id), seq, hash_)
            for slug in PAYING
            for wallet_id, id_, seq, hash_ in superuser.execute(_MOVEMENTS.format(slug).encode()).fetchall()
        }


def assert_complete(events: list[Any], ledger: dict[str, tuple[str, int, str]]) -> None:
    """What a consumer can prove, and that it is what the ledger has."""
    positions = defaultdict(set)
    chains: dict[str, list[Any]] = defaultdict(list)
    for event in events:
        positions[event["source"]].add(int(event["sequence"]))
        if "hash" in event["data"]:
            chains[event["data"]["walletId"]].append(event)
    for found in positions.values():
        assert found == set(range(1, len(found) + 1)), "positions have gaps"
    assert sum(map(len, positions.values())) == len(events)
    told: dict[str, tuple[str, int, str]] = {}
    for chain in chains.values():
        data = [event["data"] for event in chain]
        ids = [event["id"] for event in chain]
        assert [each["seq"] for each in data] == list(range(1, len(data) + 1))
        assert [each["previousHash"] for each in data[1:]] == [each["hash"] for each in data[:-1]]
        told |= {id_: (each["walletId"], each["seq"], each["hash"]) for id_, each in zip(ids, data, strict=True)}
    assert told == ledger
