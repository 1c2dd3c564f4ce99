"""The broker gets each event in order, some twice, none never."""

from collections.abc import Callable, Sequence
from uuid import uuid4

import pytest
from flask import Flask

from app.brokers.publisher import BrokerUnavailable, Message
from app.ledger.service import post
from app.relay.broker_sink import SINK, BrokerSink
from app.relay.cursors import take_cursor
from app.relay.pauses import Pauses
from tenant_schemas.testing.plugin import Database
from tests.factories.feed import Feed, in_tenant, movement
from tests.factories.people import People
from tests.factories.telemetry import TRACE_ID, TRACEPARENT, sample, traced_spans, traces


class Broker:
    """Confirms what `accepts` says, and keeps what it got."""

    def __init__(self, accepts: Callable[[Message], bool] = lambda _: True) -> None:
        self.got: list[Message] = []
        self.accepts = accepts
        self.fault: Exception | None = None

    def publish(self, messages: Sequence[Message]) -> int:
        if self.fault is not None:
            raise self.fault
        for count, message in enumerate(messages):
            if not self.accepts(message):
                return count
            self.got.append(message)
        return len(messages)

    def close(self) -> None:
        pass


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def sink(broker: Broker, clock: Clock) -> BrokerSink:
    return BrokerSink(lambda: broker, uuid4(), Pauses(clock))


def make_events(app: Flask, slug: str = "eur", payments: int = 3) -> list[str]:
    """Ids of the numbered events of a new wallet, in order. Other tenants and tests have events too."""
    people, feed = People(app), Feed(app, slug)
    wallet_id = people.wallet(people.make(**{slug: "member"}), slug, balance_minor=1000)
    with in_tenant(app, slug):
        for _ in range(payments):
            post(wallet_id, movement("payment", 1))
    return [str(event.id) for event in feed.of(wallet_id)]


def publish(app: Flask, sink: BrokerSink, slug: str = "eur") -> bool:
    with in_tenant(app, slug) as tenant:
        return sink.publish_due(tenant)


def ids(broker: Broker) -> list[str]:
    return [message.id for message in broker.got]


def end_leases(database: Database) -> None:
    database.as_superuser().execute("UPDATE eur_schema.event_cursors SET lease_until = '-infinity'")


def test_each_event_is_published_once_in_order(fresh_app: Flask, sink: BrokerSink, broker: Broker) -> None:
    first = make_events(fresh_app)
    assert not publish(fresh_app, sink)
    second = make_events(fresh_app)
    publish(fresh_app, sink)
    publish(fresh_app, sink)
    assert ids(broker) == [*first, *second]
    with in_tenant(fresh_app) as tenant:
        assert broker.got[-1].routing_key == f"{tenant.id}.wallet.payment.posted.v1"


def test_what_the_broker_refuses_stops_its_tenant_and_is_first_in_the_next_turn(
    fresh_app: Flask, sink: BrokerSink, broker: Broker, clock: Clock
) -> None:
    ours = make_events(fresh_app)
    others = make_events(fresh_app, "km")
    broker.accepts = lambda message: message.id != ours[2]
    publish(fresh_app, sink)
    assert ids(broker) == ours[:2]
    broker.accepts = lambda _: True
    publish(fresh_app, sink)
    assert ids(broker) == ours[:2], "the tenant pauses"
    publish(fresh_app, sink, "km")
    clock.seconds += 1
    publish(fresh_app, sink)
    assert ids(broker) == [*ours[:2], *others, *ours[2:]]


def test_a_broker_that_is_away_pauses_all_tenants_and_loses_nothing(
    fresh_app: Flask, sink: BrokerSink, broker: Broker, clock: Clock
) -> None:
    ours, others = make_events(fresh_app), make_events(fresh_app, "km")
    broker.fault = BrokerUnavailable("There is no broker.")
    publish(fresh_app, sink)
    broker.fault = None
    publish(fresh_app, sink, "km")
    assert not broker.got
    clock.seconds += 1
    publish(fresh_app, sink, "km")
    publish(fresh_app, sink)
    assert ids(broker) == [*others, *ours]


def test_two_relays_do_not_publish_the_same_tenant_at_once(
    fresh_app: Flask, fresh_database: Database, sink: BrokerSink, broker: Broker
) -> None:
    ours = make_events(fresh_app)
    with in_tenant(fresh_app):
        assert take_cursor(SINK, uuid4()) is not None
    publish(fresh_app, sink)
    assert not broker.got
    end_leases(fresh_database)
    publish(fresh_app, sink)
    assert ids(broker) == ours


def test_events_are_sent_again_if_the_relay_dies_before_it_has_recorded_them(
    fresh_app: Flask, fresh_database: Database, broker: Broker
) -> None:
    ours = make_events(fresh_app)

    class Killed(Exception):
        pass

    class DyingBroker(Broker):
        def publish(self, messages: Sequence[Message]) -> int:
            super().publish(messages)
            raise Killed

    dying = DyingBroker()
    with pytest.raises(Killed):
        publish(fresh_app, BrokerSink(lambda: dying, uuid4()))
    other = BrokerSink(lambda: broker, uuid4())
    publish(fresh_app, other)
    assert not broker.got, "the lease of the dead relay lasts"
    end_leases(fresh_database)
    publish(fresh_app, other)
    assert ids(dying) == ids(broker) == ours


def test_a_cursor_goes_on_in_the_feed_of_a_restored_tenant(
    fresh_app: Flask, fresh_database: Database, sink: BrokerSink, broker: Broker
) -> None:
    make_events(fresh_app)
    publish(fresh_app, sink)
    fresh_database.as_superuser().execute("UPDATE eur_schema.events_head SET feed_id = gen_random_uuid()")
    broker.got.clear()
    later = make_events(fresh_app)
    publish(fresh_app, sink)
    assert ids(broker) == later


def test_what_the_broker_confirmed_counts_also_after_the_lease_was_lost(
    fresh_app: Flask, fresh_database: Database, broker: Broker
) -> None:
    """Otherwise two relays with a slow broker would take the lease from each other, and never get on."""
    ours = make_events(fresh_app)

    class SlowBroker(Broker):
        def publish(self, messages: Sequence[Message]) -> int:
            end_leases(fresh_database)
            with in_tenant(fresh_app):
                assert take_cursor(SINK, other) is not None
            return super().publish(messages)

    slow, other = SlowBroker(), uuid4()
    publish(fresh_app, BrokerSink(lambda: slow, uuid4()))
    assert ids(slow) == ours
    with in_tenant(fresh_app):
        assert take_cursor(SINK, uuid4()) is None, "the lease of the other relay lasts"
    publish(fresh_app, BrokerSink(lambda: broker, other))
    assert not broker.got


def test_a_lease_ends_although_the_clock_was_set_back(
    fresh_app: Flask, fresh_database: Database, sink: BrokerSink, broker: Broker
) -> None:
    ours = make_events(fresh_app)
    with in_tenant(fresh_app):
        assert take_cursor(SINK, uuid4()) is not None
    ahead = "UPDATE eur_schema.event_cursors SET lease_until = lease_until + interval '1 hour'"
    fresh_database.as_superuser().execute(ahead)
    publish(fresh_app, sink)
    assert ids(broker) == ours


def test_attempts_are_counted_and_belong_to_the_trace_of_their_event(
    fresh_app: Flask,
    fresh_database: Database,
    sink: BrokerSink,
    broker: Broker,
    clock: Clock,
) -> None:
    ours = make_events(fresh_app)
    fresh_database.as_superuser().execute(
        "UPDATE eur_schema.events SET traceparent = %s WHERE id = %s", (TRACEPARENT, ours[1])
    )
    before = attempts()
    broker.accepts = lambda message: message.id != ours[2]
    with traced_spans() as exporter:
        publish(fresh_app, sink)
    assert traces(exporter, SINK) == [TRACE_ID]
    broker.fault = BrokerUnavailable("There is no broker.")
    clock.seconds += 1
    publish(fresh_app, sink)
    delivered, failed = attempts()
    assert (delivered - before[0], failed - before[1]) == (2, 2)


def attempts() -> tuple[float, float]:
    delivered, failed = (
        sample("wallet_sink_attempts_total", sink=SINK, result=result) for result in ("delivered", "failed")
    )
    return delivered, failed
