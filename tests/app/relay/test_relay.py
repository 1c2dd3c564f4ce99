"""A relay process works on the tenants that have something to do, and only under their own logins."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, Thread
from time import monotonic, sleep
from uuid import UUID, uuid4

import pytest
from flask import Flask

from app.ledger.service import post
from app.relay.broker_sink import BrokerSink
from app.relay.relay import Relay
from app.relay.sweep import Sweep
from app.relay.upkeep import Upkeep
from tenant_schemas.testing.plugin import Database
from tests.app.relay.test_broker_sink import Broker, ids
from tests.factories.feed import Feed, in_tenant, movement
from tests.factories.people import People
from tests.factories.tenants import archive_tenant

PATIENCE_SECONDS = 20


@contextmanager
def relaying(app: Flask, database: Database, broker: Broker | None = None) -> Iterator[Relay]:
    """A relay that sweeps twenty times a second."""
    sweep, stop = Sweep(database.url("wallet_relay")), Event()
    sink = BrokerSink(lambda: broker, uuid4()) if broker else None
    upkeep = Upkeep(timedelta(days=30), has_broker=sink is not None)
    relay = Relay(app, sweep, sink, upkeep, threads=2, senders=1)
    thread = Thread(target=relay.run, args=(stop, 0.05))
    thread.start()
    try:
        yield relay
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


def test_without_a_broker_events_are_numbered(fresh_app: Flask, fresh_database: Database) -> None:
    wallet_of(fresh_app, "eur")
    with relaying(fresh_app, fresh_database):
        deadline = monotonic() + PATIENCE_SECONDS
        while Feed(fresh_app, "eur").head().position < 2:
            assert monotonic() < deadline
            sleep(0.02)


def test_what_was_posted_before_a_tenant_was_archived_is_still_delivered(
    fresh_app: Flask, fresh_database: Database
) -> None:
    broker = Broker()
    wallet_of(fresh_app, "eur")
    archive_tenant(fresh_database, "eur")
    with relaying(fresh_app, fresh_database, broker):
        wait_for(broker, 2)


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
