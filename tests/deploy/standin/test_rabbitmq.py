"""The stand-in's queue at a real RabbitMQ: nothing that comes by it ends its consumer or changes the order."""

import asyncio
import json
import sqlite3
from contextlib import suppress
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import ChannelClosed

from deploy.standin import rabbitmq
from deploy.standin.proof import Incomplete
from deploy.standin.rabbitmq import EVENTS, QUEUE, consume
from tests.deploy.standin.test_inbox import movement
from tests.factories.brokers import RabbitBroker, needs_rabbitmq

pytestmark = needs_rabbitmq
PATIENCE_SECONDS = 15


async def declare_exchange(channel: AbstractChannel) -> None:
    """As the relay does."""
    unrouted = {"alternate-exchange": "wallet.events.unrouted"}
    await channel.declare_exchange(EVENTS, aio_pika.ExchangeType.TOPIC, durable=True, arguments=unrouted)


async def consume_until(url: str, taken: list[str], failures: list[Exception], bodies: list[bytes]) -> None:
    """Send the bodies, and consume until the event `last` is taken. Each failure hits one event that is taken."""
    done, loop = asyncio.Event(), asyncio.get_running_loop()

    def take(event: dict[str, Any]) -> None:
        if failures:
            raise failures.pop()
        taken.append(event["id"])
        if event["id"] == "last":
            loop.call_soon_threadsafe(done.set)

    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await declare_exchange(channel)
        consumer = asyncio.create_task(consume(url, "tenant", take))
        waiting = asyncio.create_task(done.wait())
        try:
            exchange = await channel.get_exchange(EVENTS)
            while not await is_consumed(connection):
                await asyncio.sleep(0.05)
            for body in bodies:
                await exchange.publish(aio_pika.Message(body), "tenant.x")
            await asyncio.wait({consumer, waiting}, timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (consumer, waiting):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await channel.queue_delete(QUEUE)


async def is_consumed(connection: AbstractConnection) -> bool:
    channel = await connection.channel()
    with suppress(ChannelClosed):  # The queue is not there yet.
        queue = await channel.get_queue(QUEUE)
        return bool(queue.declaration_result.consumer_count)
    return False


def test_what_is_no_event_and_what_cannot_be_stored_now_hold_up_nothing(
    rabbit_broker: RabbitBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq, "PAUSE_SECONDS", 0.05)
    wrong = [b"[" * 100_000, json.dumps(movement(1) | {"id": []}).encode(), b'{"a": "\\ud800"}']
    events = [json.dumps(movement(seq, id=id_)).encode() for seq, id_ in enumerate(("first", "last"), 1)]
    failures: list[Exception] = [Incomplete("a gap"), sqlite3.OperationalError("database is locked")]
    taken: list[str] = []
    asyncio.run(consume_until(rabbit_broker.url, taken, failures, [*wrong, events[0], *wrong, events[1]]))
    assert (failures, taken) == ([], ["first", "last"])
