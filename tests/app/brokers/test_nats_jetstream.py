"""Publishing to a real NATS JetStream: acknowledged in order, stored once."""

import asyncio
from collections.abc import Iterator, Sequence

import nats
import pytest
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from app.brokers import nats_jetstream
from app.brokers.nats_jetstream import STREAM, NatsPublisher
from app.brokers.publisher import EVENTS, BrokerUnavailable
from tests.app.brokers.conftest import Make, publish_through_a_kill
from tests.factories.brokers import NatsBroker, needs_nats

pytestmark = needs_nats


@pytest.fixture
def publisher(nats_broker: NatsBroker) -> Iterator[NatsPublisher]:
    publisher = NatsPublisher(nats_broker.url)
    assert publisher.publish([]) == 0  # It makes the stream.
    yield publisher
    publisher.close()


def read(broker: NatsBroker, tenant_id: str) -> Sequence[Msg]:
    async def read_all(jetstream: JetStreamContext) -> Sequence[Msg]:
        config = ConsumerConfig(ack_policy=AckPolicy.NONE)
        subscription = await jetstream.pull_subscribe(f"{EVENTS}.{tenant_id}.>", stream=STREAM, config=config)
        info = await subscription.consumer_info()
        found: list[Msg] = []
        while len(found) < (info.num_pending or 0):
            found += await subscription.fetch(1000, timeout=5)
        return found

    async def run() -> Sequence[Msg]:
        async with await nats.connect(broker.url) as client:
            return await read_all(client.jetstream())

    return asyncio.run(run())


def resize(broker: NatsBroker, max_messages: int) -> None:
    async def run() -> None:
        async with await nats.connect(broker.url) as client:
            jetstream = client.jetstream()
            config = (await jetstream.stream_info(STREAM)).config
            config.max_msgs = max_messages
            await jetstream.update_stream(config)

    asyncio.run(run())


def ids(messages: Sequence[Msg]) -> list[str]:
    return [(message.headers or {})["Nats-Msg-Id"] for message in messages]


def test_a_big_batch_arrives_in_order_and_the_same_again_is_stored_once(
    nats_broker: NatsBroker, publisher: NatsPublisher, tenant_id: str, make: Make
) -> None:
    sent = make(500, wallets=500, size=20_000)
    assert publisher.publish(sent) == 500
    assert publisher.publish(sent[250:]) == 250
    got = read(nats_broker, tenant_id)
    assert ids(got) == [each.id for each in sent]
    assert got[0].subject == f"{EVENTS}.{tenant_id}.wallet.payment.posted.v1"
    assert got[0].data == sent[0].body
    assert (got[0].headers or {})["partitionkey"] == "wallet 0"


def test_a_full_stream_refuses_and_keeps_what_it_has(
    nats_broker: NatsBroker, publisher: NatsPublisher, tenant_id: str, make: Make
) -> None:
    before = make(5)
    assert publisher.publish(before) == 5
    resize(nats_broker, 5)
    sent = make(20)
    assert publisher.publish(sent) == 0
    resize(nats_broker, -1)
    assert publisher.publish(sent) == 20
    assert set(ids(read(nats_broker, tenant_id))) >= {each.id for each in sent}


def test_a_server_that_is_killed_in_the_middle_has_the_confirmed_front(
    nats_broker: NatsBroker, publisher: NatsPublisher, tenant_id: str, make: Make
) -> None:
    sent = make(60_000, wallets=1000)
    done = publish_through_a_kill(nats_broker, publisher, sent, 0.3)
    assert publisher.publish(sent[done : done + 50]) == 50
    got = set(ids(read(nats_broker, tenant_id)))
    assert got >= {each.id for each in sent[: done + 50]}


def test_a_server_that_hangs_is_unavailable_and_then_goes_on(
    nats_broker: NatsBroker,
    publisher: NatsPublisher,
    tenant_id: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = make(20)
    with monkeypatch.context() as patch, nats_broker.hanging():
        patch.setattr(nats_jetstream, "CONFIRM_SECONDS", 0.2)
        with pytest.raises(BrokerUnavailable, match="confirms nothing"):
            publisher.publish(sent)
    assert publisher.publish(sent) == 20
    assert set(ids(read(nats_broker, tenant_id))) == {each.id for each in sent}
