"""Slow endpoints delay no other endpoint: neither of their tenant nor of another one."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from time import monotonic, sleep
from uuid import uuid4

import pytest

from app.relay import deliveries as deliveries_module
from app.relay.deliveries import Deliveries, Endpoint
from app.webhooks import delivery as delivery_module
from app.webhooks.delivery import deliver_due
from tests.app.relay.test_turns import named_tenant
from tests.factories.feed import in_tenant
from tests.factories.hooked import Hooked
from tests.factories.webhooks import Consumer, Received, Reply

PATIENCE_SECONDS = 10


@pytest.fixture
def gate() -> Iterator[Event]:
    """Slow endpoints answer when it is open."""
    gate = Event()
    yield gate
    gate.set()


def answering_slowly(gate: Event, consumer: Consumer) -> None:
    def answer(got: Received) -> Reply:
        if "slow" in got.path:
            gate.wait(PATIENCE_SECONDS)
        return Reply()

    consumer.answer = answer


@contextmanager
def delivering(hooked: Hooked, senders: int) -> Iterator[Deliveries]:
    own = Deliveries(hooked.app, senders, lambda _: None)
    own.turns.start()
    try:
        yield own
    finally:
        assert own.turns.stop(PATIENCE_SECONDS)


def offer(own: Deliveries, hooked: Hooked) -> None:
    with in_tenant(hooked.app, hooked.slug) as tenant:
        own.offer_due(tenant)


def wait_for(consumer: Consumer, path: str, count: int) -> None:
    deadline = monotonic() + PATIENCE_SECONDS
    while sum(got.path == path for got in consumer.received) < count:
        assert monotonic() < deadline
        sleep(0.02)


def test_a_slow_endpoint_delays_no_other_of_its_tenant(hooked: Hooked, consumer: Consumer, gate: Event) -> None:
    answering_slowly(gate, consumer)
    hooked.webhook(consumer.url("/slow"))
    hooked.webhook(consumer.url("/quick"))
    hooked.wallet()
    with delivering(hooked, senders=2) as own:
        offer(own, hooked)
        wait_for(consumer, "/slow", 1)
        wait_for(consumer, "/quick", 2)
        hooked.wallet()
        offer(own, hooked)
        wait_for(consumer, "/quick", 4)
        gate.set()


def test_endpoints_known_as_slow_leave_half_of_the_senders_to_the_others(
    hooked: Hooked, consumer: Consumer, gate: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries_module, "SLOW_SECONDS", 0.1)
    consumer.answer = lambda got: Reply(body=b"x", seconds_before_each_byte=0.2 if "slow" in got.path else 0)
    for _ in range(3):
        hooked.webhook(consumer.url("/slow"))
    hooked.webhook(consumer.url("/quick"))
    hooked.wallet()
    with delivering(hooked, senders=2) as own:
        offer(own, hooked)
        assert own.turns.wait_until_idle(PATIENCE_SECONDS)
        consumer.take()
        answering_slowly(gate, consumer)
        hooked.wallet()
        offer(own, hooked)
        wait_for(consumer, "/slow", 1)
        wait_for(consumer, "/quick", 2)
        assert sum(got.path == "/slow" for got in consumer.received) == 1
        hooked.wallet()
        offer(own, hooked)
        wait_for(consumer, "/quick", 4)
        gate.set()


def test_one_tenant_holds_half_of_the_senders_at_most() -> None:
    busy, other = named_tenant("busy"), named_tenant("other")
    own = Deliveries(None, 8, lambda _: None)  # type: ignore[arg-type]
    running = [Endpoint(busy, uuid4()) for _ in range(4)]
    assert own.may_start(Endpoint(busy, uuid4()), running[:3])
    assert not own.may_start(Endpoint(busy, uuid4()), running)
    assert own.may_start(Endpoint(other, uuid4()), running)


def test_a_turn_of_a_slow_endpoint_is_one_round_and_the_next_turn_begins_with_another(
    hooked: Hooked, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay that stops waits for one round, and a replay without end does not keep new events waiting."""
    monkeypatch.setattr(delivery_module, "QUICK_SECONDS", 0.0)
    webhook_id = hooked.webhook(consumer.url())
    hooked.pay(hooked.wallet(), 3)
    with in_tenant(hooked.app, hooked.slug):
        turns = [deliver_due(webhook_id, number) for number in range(3)]
    assert [turn.next_round for turn in turns if turn] == [1, 2, 0]
    assert len(consumer.take()) == 5
    assert hooked.get(webhook_id).position == hooked.feed.head().position
