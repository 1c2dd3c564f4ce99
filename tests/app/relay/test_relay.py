"""A relay process works on the tenants that have something to do, and only under their own logins."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, Semaphore, Thread
from time import monotonic, sleep
from uuid import UUID, uuid4

import psycopg
import pytest
from flask import Flask

from app.brokers.publisher import Message
from app.ledger.service import post
from app.relay import broker_sink, relay
from app.relay.broker_sink import BrokerSink
from app.relay.relay import Relay
from app.relay.sweep import Sweep
from app.relay.upkeep import Upkeep
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing.plugin import Database
from tests.app.relay.test_broker_sink import Broker, ids
from tests.factories.feed import Feed, in_tenant, movement
from tests.factories.people import People
from tests.factories.tenants import archive_tenant, renamed

PATIENCE_SECONDS = 20
TURN = 5  # events


@contextmanager
def relaying(app: Flask, database: Database, broker: Broker | None = None, *, threads: int = 2) -> Iterator[None]:
    sweep = Sweep(database.url("wallet_relay"))
    sink = BrokerSink(lambda: broker, uuid4()) if broker else None
    upkeep = Upkeep(timedelta(days=30), has_broker=sink is not None)
    with running(Relay(app, sweep, sink, upkeep, threads=threads, senders=1), sweep):
        yield


@contextmanager
def running(relay: Relay, sweep: Sweep) -> Iterator[None]:
    """The relay sweeps twenty times a second."""
    stop = Event()
    thread = Thread(target=relay.run, args=(stop, 0.05))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE_SECONDS)
        sweep.close()
        assert not thread.is_alive()


def wallet_of(app: Flask, slug: str) -> UUID:
    people = People(app)
    return people.wallet(people.make(**{slug: "member"}), slug, balance_minor=1000)


def pay(app: Flask, slug: str, wallet_id: UUID, times: int = 1) -> None:
    with in_tenant(app, slug):
        for _ in range(times):
            post(wallet_id, movement("payment", 1))


def wait_for(broker: Broker, count: int) -> None:
    deadline = monotonic() + PATIENCE_SECONDS
    while len(broker.got) < count:
        assert monotonic() < deadline, f"{len(broker.got)} of {count} events came"
        sleep(0.02)


def wait_for_position(app: Flask, slug: str, position: int) -> None:
    deadline = monotonic() + PATIENCE_SECONDS
    while Feed(app, slug).head().position < position:
        assert monotonic() < deadline
        sleep(0.02)


def test_events_of_all_tenants_reach_the_broker_numbered_and_in_order(
    fresh_app: Flask, fresh_database: Database
) -> None:
    broker = Broker()
    with relaying(fresh_app, fresh_database, broker):
        wallets = {slug: wallet_of(fresh_app, slug) for slug in ("eur", "km")}
        for slug, wallet_id in wallets.items():
            pay(fresh_app, slug, wallet_id, 5)
        wait_for(broker, 14)
    for slug, wallet_id in wallets.items():
        told = [str(event.id) for event in Feed(fresh_app, slug).read(wallet_ids=[wallet_id])]
        assert [id_ for id_ in ids(broker) if id_ in told] == told
        Feed(fresh_app, slug).assert_gapless()
    assert len(ids(broker)) == len(set(ids(broker))) == 14


def test_a_broker_that_hangs_delays_no_numbers(fresh_app: Flask, fresh_database: Database) -> None:
    """Webhooks and streams wait for these."""
    gate, called = Event(), Semaphore(0)

    class HangingBroker(Broker):
        def publish(self, messages: Sequence[Message]) -> int:
            called.release()
            gate.wait(PATIENCE_SECONDS)
            return super().publish(messages)

    with relaying(fresh_app, fresh_database, HangingBroker()):
        wallets = {slug: wallet_of(fresh_app, slug) for slug in ("eur", "km")}
        for _ in wallets:  # Both threads that publish.
            assert called.acquire(timeout=PATIENCE_SECONDS)
        for slug, wallet_id in wallets.items():
            pay(fresh_app, slug, wallet_id)
            wait_for_position(fresh_app, slug, 3)
        gate.set()


def test_a_tenant_with_ten_times_the_events_lets_another_one_in_after_each_turn(
    fresh_app: Flask, fresh_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "STAMP_BATCH", TURN)
    monkeypatch.setattr(broker_sink, "BATCH", TURN)
    broker = Broker()
    pay(fresh_app, "eur", wallet_of(fresh_app, "eur"), 10 * TURN - 2)
    pay(fresh_app, "km", wallet_of(fresh_app, "km"), TURN - 2)
    with relaying(fresh_app, fresh_database, broker, threads=1):
        wait_for(broker, 11 * TURN)
    of_km = [event.id for event in Feed(fresh_app, "km").read()]
    last = max(ids(broker).index(str(id_)) for id_ in of_km)
    assert last < 4 * TURN


def test_upkeep_is_tried_again_if_the_server_was_away(fresh_app: Flask, fresh_database: Database) -> None:
    tended = Semaphore(0)

    class CountedUpkeep(Upkeep):
        def tend(self, tenant: Tenant) -> bool:
            tended.release()
            return super().tend(tenant)

    class LateSweep(Sweep):
        was_away = False

        def tenants(self) -> list[Tenant]:
            if not self.was_away:
                self.was_away = True
                raise psycopg.OperationalError("The server is away.")
            return super().tenants()

    sweep = LateSweep(fresh_database.url("wallet_relay"))
    upkeep = CountedUpkeep(timedelta(days=30), has_broker=False)
    with running(Relay(fresh_app, sweep, None, upkeep, threads=1, senders=1), sweep):
        for _ in ("eur", "km"):
            assert tended.acquire(timeout=PATIENCE_SECONDS)


def test_without_a_broker_events_are_numbered(fresh_app: Flask, fresh_database: Database) -> None:
    wallet_of(fresh_app, "eur")
    with relaying(fresh_app, fresh_database):
        wait_for_position(fresh_app, "eur", 2)


def test_what_was_posted_before_a_tenant_was_archived_is_still_delivered(
    fresh_app: Flask, fresh_database: Database
) -> None:
    broker = Broker()
    wallet_of(fresh_app, "eur")
    archive_tenant(fresh_database, "eur")
    with relaying(fresh_app, fresh_database, broker):
        wait_for(broker, 2)


def test_a_tenant_that_is_renamed_meanwhile_goes_on_as_the_same_source(
    fresh_app: Flask, fresh_database: Database, mark: Tenant
) -> None:
    """With another login, which the relay learns from its sweep."""
    broker = Broker()
    with relaying(fresh_app, fresh_database, broker):
        wallet_id = wallet_of(fresh_app, mark.slug)
        wait_for(broker, 2)
        pay(fresh_app, mark.slug, wallet_id, 20)
        now = renamed(fresh_database)
        pay(fresh_app, now.slug, wallet_id)
        wait_for(broker, 23)
    assert now.role_name != mark.role_name
    told = [str(event.id) for event in Feed(fresh_app, now.slug).read()]
    assert list(dict.fromkeys(ids(broker))) == told
    assert {message.tenant_id for message in broker.got} == {str(mark.id)}


@pytest.mark.changes_roles
def test_a_tenant_that_can_not_be_reached_keeps_no_other_waiting(fresh_app: Flask, fresh_database: Database) -> None:
    broker = Broker()
    wallet_of(fresh_app, "eur")
    wallet_of(fresh_app, "km")
    fresh_app.extensions["tenant_schemas"].close()
    fresh_database.as_superuser().execute("ALTER ROLE tenant_eur NOLOGIN")
    try:
        with relaying(fresh_app, fresh_database, broker):
            wait_for(broker, 2)
    finally:
        fresh_database.as_superuser().execute("ALTER ROLE tenant_eur LOGIN")
    with relaying(fresh_app, fresh_database, broker):
        wait_for(broker, 4)


def test_a_relay_goes_on_after_its_connection_was_ended(fresh_app: Flask, fresh_database: Database) -> None:
    broker = Broker()
    with relaying(fresh_app, fresh_database, broker):
        wallet_id = wallet_of(fresh_app, "eur")
        wait_for(broker, 2)
        fresh_database.as_superuser().execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'wallet_relay'"
            " AND datname = current_database()"
        )
        pay(fresh_app, "eur", wallet_id)
        wait_for(broker, 3)
