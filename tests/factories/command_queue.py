"""A tenant's queue of commands at RabbitMQ, as a service and an operator see it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from threading import Event
from typing import Any
from uuid import UUID, uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import ChannelClosed

from app.queue_commands.tenant_queue import COMMANDS

PATIENCE_SECONDS = 15


def on_channel(url: str, work: Callable[[AbstractChannel], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with await aio_pika.connect(url) as connection:
            return await work(await connection.channel(on_return_raises=True))

    return asyncio.run(run())


def publish(url: str, tenant_id: UUID, user_id: str | None, bodies: Sequence[bytes]) -> None:
    """Send messages to the tenant's exchange. `guest` may send under any name."""

    async def work(channel: AbstractChannel) -> None:
        exchange = await channel.get_exchange(f"{COMMANDS}.{tenant_id}")
        for body in bodies:
            await exchange.publish(aio_pika.Message(body, user_id=user_id, message_id=uuid4().hex), "")

    on_channel(url, work)


def take(url: str, queue_name: str) -> AbstractIncomingMessage:
    """The next message of a queue, which may not have come yet."""

    async def work(channel: AbstractChannel) -> AbstractIncomingMessage:
        queue = await channel.get_queue(queue_name)
        for _ in range(PATIENCE_SECONDS * 20):
            message = await queue.get(fail=False)
            if message is not None:
                await message.ack()
                return message
            await asyncio.sleep(0.05)
        raise AssertionError(f"nothing came into {queue_name}")

    found: AbstractIncomingMessage = on_channel(url, work)
    return found


def is_consumed(url: str, tenant_id: UUID) -> bool:
    """Whether the tenant's queue is empty, also of messages that are in hand."""

    async def work(channel: AbstractChannel) -> bool:
        queue = await channel.get_queue(f"{COMMANDS}.{tenant_id}")
        return not queue.declaration_result.message_count

    return bool(on_channel(url, work))


def wait_for_queue(url: str, tenant_id: UUID) -> None:
    async def run() -> None:
        async with await aio_pika.connect(url) as connection:
            for _ in range(PATIENCE_SECONDS * 20):
                channel = await connection.channel()
                try:
                    queue = await channel.get_queue(f"{COMMANDS}.{tenant_id}")
                except ChannelClosed:
                    await asyncio.sleep(0.05)
                    continue
                if queue.declaration_result.consumer_count:
                    return
                await channel.close()
                await asyncio.sleep(0.05)
            raise AssertionError("the queue has no consumer")

    asyncio.run(run())


def until(claim: Callable[[], bool]) -> None:
    waiting = Event()
    for _ in range(PATIENCE_SECONDS * 20):
        if claim():
            return
        waiting.wait(0.05)
    raise AssertionError("it did not come true")
