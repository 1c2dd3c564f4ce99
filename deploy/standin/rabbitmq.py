"""The stand-in's queue of the events of its tenant."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from typing import Any

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import AMQPException

from deploy.standin.events import Unreadable, read_event
from deploy.standin.proof import Incomplete

EVENTS = "wallet.events"  # The wallet's exchange. Its routing keys are `<tenant id>.<type of the event>`.
QUEUE = "standin"
PAUSE_SECONDS = 0.5
# RabbitMQ 4 deletes a message after 20 deliveries if nothing else is said: an event that waits for one before it, too.
DELIVERY_LIMIT = 1_000_000
REST = (AMQPException, OSError, sqlite3.Error, Incomplete)  # After these the queue is consumed again.
log = logging.getLogger(__name__)


async def consume(url: str, tenant_id: str, take: Callable[[dict[str, Any]], Any]) -> None:
    """Hand each event to `take`, and acknowledge it afterwards: an event that `take` did not store comes again. Goes
    on for ever, also while the broker is away.
    """
    while True:
        try:
            async with await aio_pika.connect(url) as connection:
                await _consume(connection, tenant_id, take)
        except REST as error:
            log.warning("the queue of events rests: %s", error)
            await asyncio.sleep(PAUSE_SECONDS)


async def _consume(connection: AbstractConnection, tenant_id: str, take: Callable[[dict[str, Any]], Any]) -> None:
    """One consumer is active at a time, and one event in its hand, so that the events of a wallet stay in order: one
    that is put back comes again after those that were delivered already.
    """
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=1)
    arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-single-active-consumer": True}
    arguments["x-delivery-limit"] = DELIVERY_LIMIT
    queue = await channel.declare_queue(QUEUE, durable=True, arguments=arguments)
    await queue.bind(EVENTS, f"{tenant_id}.#")
    async with queue.iterator() as messages:
        async for message in messages:
            async with message.process(requeue=True):
                await _hand_over(message, take)


async def _hand_over(message: AbstractIncomingMessage, take: Callable[[dict[str, Any]], Any]) -> None:
    """What is no event is left out: it would come again for ever, and hold up all events after it."""
    try:
        event = read_event(message.body)
    except Unreadable as error:
        log.error("the message %s is left out: %s", message.message_id, error)  # noqa: TRY400  It has no trace to show.
    else:
        await asyncio.to_thread(take, event)
