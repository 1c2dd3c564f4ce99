"""The stand-in's queue of the events of its tenant."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import aio_pika
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import AMQPException

from deploy.standin.proof import Incomplete

EVENTS = "wallet.events"  # The wallet's exchange. Its routing keys are `<tenant id>.<type of the event>`.
QUEUE = "standin"
PAUSE_SECONDS = 0.5
log = logging.getLogger(__name__)


async def consume(url: str, tenant_id: str, take: Callable[[dict[str, Any]], Any]) -> None:
    """Hand each event to `take`, and acknowledge it afterwards: an event that `take` did not store comes again. Goes
    on for ever, also while the broker is away.
    """
    while True:
        try:
            async with await aio_pika.connect(url) as connection:
                await _consume(connection, tenant_id, take)
        except (AMQPException, OSError, Incomplete) as error:
            log.warning("the queue of events rests: %s", error)
            await asyncio.sleep(PAUSE_SECONDS)


async def _consume(connection: AbstractConnection, tenant_id: str, take: Callable[[dict[str, Any]], Any]) -> None:
    """One consumer is active at a time, so that the events of a wallet stay in order."""
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=50)
    arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-single-active-consumer": True}
    queue = await channel.declare_queue(QUEUE, durable=True, arguments=arguments)
    await queue.bind(EVENTS, f"{tenant_id}.#")
    async with queue.iterator() as messages:
        async for message in messages:
            async with message.process(requeue=True):
                event = event_of(message.body)
                if event is None:
                    log.error("the message %s is no event of the wallet, and is left out", message.message_id)
                else:
                    await asyncio.to_thread(take, event)


def event_of(body: bytes) -> dict[str, Any] | None:
    """None for what would come again for ever, and hold up all events after it."""
    try:
        event = json.loads(body)
    except ValueError:
        return None
    is_event = isinstance(event, dict) and {"source", "id", "type", "data"} <= event.keys()
    return event if is_event and isinstance(event["data"], dict) else None
