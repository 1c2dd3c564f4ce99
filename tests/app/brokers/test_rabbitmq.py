"""Publishing to a real RabbitMQ: confirmed in order, and never a hole, whatever the broker does."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from time import sleep
from typing import Any, TypeVar
from uuid import uuid4

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import ChannelClosed

from app.brokers import rabbitmq
from app.brokers.publisher import EVENTS, BrokerUnavailable, Message
from app.brokers.rabbitmq import UNROUTED, RabbitPublisher
from tests.app.brokers.conftest import Make, publish_through_a_kill
from tests.factories.brokers import RabbitBroker, needs_rabbitmq

pytestmark = needs_rabbitmq
Result = TypeVar("Result")


@pytest.fixture
def publisher(rabbit_broker: RabbitBroker) -> Iterator[RabbitPublisher]:
    publisher = RabbitPublisher(rabbit_broker.url)
    assert publisher.publish([]) == 0  # It declares the exchanges.
    yield publisher
    publisher.close()


def on_channel(broker: RabbitBroker, work: Callable[[AbstractChannel], Coroutine[Any, Any, Result]]) -> Result:
    async def run() -> Result:
        async with await aio_pika.connect(broker.url) as connection:
            return await work(await connection.channel())

    return asyncio.run(run())


def make_queue(broker: RabbitBroker, tenant_id: str, exchange: str = EVENTS, **arguments: Any) -> None:
    async def work(channel: AbstractChannel) -> None:
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        queue = await channel.declare_queue(tenant_id, durable=True, arguments=named)
        await queue.bind(exchange, f"{tenant_id}.#")

    on_channel(broker, work)


def read(broker: RabbitBroker, tenant_id: str) -> Sequence[AbstractIncomingMessage]:
    """All messages of the tenant's queue, acknowledged."""

    async def work(channel: AbstractChannel) -> Sequence[AbstractIncomingMessage]:
        queue = await channel.get_queue(tenant_id)
        found = []
        while (message := await queue.get(fail=False)) is not None:
            await message.ack()
            found.append(message)
        return found

    return on_channel(broker, work)


def delete(broker: RabbitBroker, tenant_id: str) -> None:
    async def work(channel: AbstractChannel) -> None:
        await channel.queue_delete(tenant_id)

    on_channel(broker, work)


def ids(messages: Sequence[Any]) -> list[str]:
    return [getattr(message, "message_id", None) or message.id for message in messages]


def first_seen(messages: Sequence[AbstractIncomingMessage]) -> list[str]:
    """The ids as a consumer has them that drops what it has seen."""
    return list(dict.fromkeys(ids(messages)))


def of_wallets(messages: Sequence[Message], order: Sequence[str]) -> dict[str, list[str]]:
    wallet_of = {message.id: message.partition_key for message in messages}
    found: dict[str, list[str]] = {}
    for each in order:
        found.setdefault(wallet_of[each], []).append(each)
    return found


def test_a_message_is_persistent_and_says_what_it_is(
    rabbit_broker: RabbitBroker, publisher: RabbitPublisher, tenant_id: str, make: Make
) -> None:
    make_queue(rabbit_broker, tenant_id)
    sent = make(1)
    assert publisher.publish(sent) == 1
    (got,) = read(rabbit_broker, tenant_id)
    assert (got.body, got.message_id, got.type) == (sent[0].body, sent[0].id, "wallet.payment.posted.v1")
    assert (got.content_type, got.delivery_mode) == ("application/cloudevents+json", 2)
    assert (got.routing_key, got.headers) == (f"{tenant_id}.wallet.payment.posted.v1", {"partitionkey": "wallet 0"})


def test_a_big_batch_arrives_whole_and_each_wallets_in_order(
    rabbit_broker: RabbitBroker, publisher: RabbitPublisher, tenant_id: str, make: Make
) -> None:
    make_queue(rabbit_broker, tenant_id)
    sent = make(600, wallets=50, size=20_000)
    assert publisher.publish(sent) == 600
    got = ids(read(rabbit_broker, tenant_id))
    assert len(got) == 600
    assert of_wallets(sent, got) == of_wallets(sent, ids(sent))


def test_what_no_queue_wants_is_returned_and_publishing_stops_before_it(
    rabbit_broker: RabbitBroker, publisher: RabbitPublisher, tenant_id: str, make: Make
) -> None:
    assert publisher.publish(make(3)) == 0
    make_queue(rabbit_broker, tenant_id)
    stranger = Message("stranger", "type", "other.type", "wallet", b"{}")
    first, second = make(2)
    assert publisher.publish([first, stranger, second]) == 1
    assert ids(read(rabbit_broker, tenant_id))[0] == first.id


def test_with_a_queue_at_the_alternate_exchange_it_waits_there(
    rabbit_broker: RabbitBroker, publisher: RabbitPublisher, tenant_id: str, make: Make
) -> None:
    make_queue(rabbit_broker, tenant_id, UNROUTED)
    sent = make(3)
    assert publisher.publish(sent) == 3
    assert ids(read(rabbit_broker, tenant_id)) == ids(sent)
    delete(rabbit_broker, tenant_id)


@contextmanager
def reading(broker: RabbitBroker, tenant_id: str) -> Iterator[list[str]]:
    """A consumer that takes one message after the other, and the ids that it has seen, in their order."""
    seen: list[str] = []
    is_over = Event()

    async def run() -> None:
        async with await aio_pika.connect(broker.url) as connection:
            channel = await connection.channel()
            queue = await channel.get_queue(tenant_id)
            while not is_over.is_set():
                message = await queue.get(fail=False)
                if message is None:
                    await asyncio.sleep(0.001)
                else:
                    seen.append(str(message.message_id))
                    await message.ack()

    thread = Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()


def test_a_full_queue_refuses_and_each_wallets_messages_keep_their_order_while_it_is_read(
    rabbit_broker: RabbitBroker, publisher: RabbitPublisher, tenant_id: str, make: Make
) -> None:
    make_queue(rabbit_broker, tenant_id, x_max_length=3, x_overflow="reject-publish")
    sent = make(300, wallets=20)
    done, refusals = 0, 0
    with reading(rabbit_broker, tenant_id) as seen:
        while done < len(sent):
            count = publisher.publish(sent[done:])
            done, refusals = done + count, refusals + 1
        while len(set(seen)) < len(sent):
            sleep(0.01)
    assert refusals > 1
    assert of_wallets(sent, list(dict.fromkeys(seen))) == of_wallets(sent, ids(sent))


def test_a_broker_that_is_killed_in_the_middle_has_everything_after_it_is_back(
    rabbit_broker: RabbitBroker, publisher: RabbitPublisher, tenant_id: str, make: Make
) -> None:
    """The confirmed front is stored, the next call says that the broker is away, and the rest follows. It is a classic
    queue: RabbitMQ 3.10 forgets a quorum queue's log if it is killed within minutes of the queue's declaration.
    """
    make_queue(rabbit_broker, tenant_id)
    sent = make(20_000, wallets=500)
    done = publish_through_a_kill(rabbit_broker, publisher, sent, 0.4)
    rest = sent[: done + 200]
    assert publisher.publish(rest[done:]) == 200
    order = first_seen(read(rabbit_broker, tenant_id))
    kept = set(ids(rest))
    wanted = of_wallets(sent, ids(rest))
    assert {wallet: [each for each in of_wallets(sent, order)[wallet] if each in kept] for wallet in wanted} == wanted


def test_a_broker_that_hangs_is_unavailable_and_then_goes_on(
    rabbit_broker: RabbitBroker,
    publisher: RabbitPublisher,
    tenant_id: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one does that is out of memory. The relay then pauses all tenants, instead of trying each one in vain."""
    make_queue(rabbit_broker, tenant_id)
    sent = make(20)
    with monkeypatch.context() as patch, rabbit_broker.hanging():
        for name in ("CONFIRM_SECONDS", "CONNECT_SECONDS"):
            patch.setattr(rabbitmq, name, 0.2)
        with pytest.raises(BrokerUnavailable, match="confirms nothing"):
            publisher.publish(sent)
        with pytest.raises(BrokerUnavailable, match="can't be reached"):
            publisher.publish(sent)
    assert publisher.publish(sent) == 20
    assert first_seen(read(rabbit_broker, tenant_id)) == ids(sent)


def test_a_tenants_subscriber_binds_no_events_of_another_tenant(
    rabbit_broker: RabbitBroker, publisher: RabbitPublisher, tenant_id: str, make: Make
) -> None:
    """With the permissions of docs/brokers.md."""
    other = str(uuid4())
    rabbit_broker.control("add_user", "shop", "secret")
    rabbit_broker.control("set_permissions", "shop", r"^shop\.", r"^shop\.", r"^(shop\.|wallet\.events$)")
    rabbit_broker.control("set_topic_permissions", "shop", EVENTS, "^$", rf"^{tenant_id}\.")

    async def bind(routing_key: str) -> None:
        async with await aio_pika.connect(rabbit_broker.url.replace("://", "://shop:secret@")) as connection:
            queue = await (await connection.channel()).declare_queue("shop.events", durable=True)
            await queue.bind(EVENTS, routing_key)

    for refused in (f"{other}.#", "#", "*.wallet.payment.posted.v1"):
        with pytest.raises(ChannelClosed, match="ACCESS_REFUSED"):
            asyncio.run(bind(refused))
    asyncio.run(bind(f"{tenant_id}.#"))
    sent = make(2)
    assert publisher.publish(sent) == 2
    assert ids(read(rabbit_broker, "shop.events")) == ids(sent)
    delete(rabbit_broker, "shop.events")
