"""Publishes to RabbitMQ: a topic exchange, persistent messages, publisher confirms.

An event that no queue wants goes to the alternate exchange. Without a queue there RabbitMQ returns it, and `publish`
stops before it: nothing is lost because nobody has made a queue yet.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, ChannelNotFoundEntity, DeliveryError

from app.brokers.lanes import send_in_lanes
from app.brokers.loop_thread import LoopThread
from app.brokers.publisher import CONFIRM_SECONDS, CONNECT_SECONDS, CONTENT_TYPE, EVENTS, BrokerUnavailable, Message

UNROUTED: Final = f"{EVENTS}.unrouted"
_FAULTS: Final = (*CONNECTION_EXCEPTIONS, TimeoutError)

log = structlog.get_logger(__name__)


class RabbitPublisher:
    """See Publisher. The first connection declares both exchanges if they are missing."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._loop = LoopThread("rabbitmq")
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None

    def publish(self, messages: Sequence[Message]) -> int:
        return self._loop.run(self._publish(messages))

    def close(self) -> None:
        self._loop.run(self._drop())
        self._loop.close()

    async def _publish(self, messages: Sequence[Message]) -> int:
        exchange = await self._connected()
        count, fault = await send_in_lanes(messages, partial(_send, exchange))
        if fault is not None:
            log.warning("broker_did_not_confirm", broker="rabbitmq", event_id=messages[count].id, error=str(fault))
        if fault is not None and not isinstance(fault, DeliveryError):
            await self._drop()
            if count == 0 and isinstance(fault, TimeoutError):
                raise BrokerUnavailable("RabbitMQ confirms nothing: it hangs, or is out of memory or disk.")
        return count

    async def _connected(self) -> AbstractExchange:
        if self._channel is not None and not self._channel.is_closed:
            return await self._channel.get_exchange(EVENTS, ensure=False)
        await self._drop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                self._connection = await aio_pika.connect(self._url)
                await _declare_exchanges(self._connection)
                self._channel = await self._connection.channel(on_return_raises=True)
        except _FAULTS as error:
            await self._drop()
            raise BrokerUnavailable(f"RabbitMQ can't be reached: {error}") from error
        return await self._channel.get_exchange(EVENTS, ensure=False)

    async def _drop(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            try:
                await asyncio.wait_for(connection.close(), CONNECT_SECONDS)
            except _FAULTS as error:
                log.debug("broker_connection_lost", broker="rabbitmq", error=str(error))


async def _declare_exchanges(connection: AbstractConnection) -> None:
    """Declare what is missing, and leave as it is what an operator has declared, perhaps with other arguments."""

    async def is_there(name: str) -> bool:
        channel = await connection.channel()
        try:
            await channel.get_exchange(name, ensure=True)
        except ChannelNotFoundEntity:
            return False
        await channel.close()
        return True

    if not await is_there(UNROUTED):
        await _declare(connection, UNROUTED, aio_pika.ExchangeType.FANOUT)
    if not await is_there(EVENTS):
        await _declare(connection, EVENTS, aio_pika.ExchangeType.TOPIC, {"alternate-exchange": UNROUTED})


async def _declare(
    connection: AbstractConnection, name: str, kind: aio_pika.ExchangeType, arguments: dict[str, str] | None = None
) -> None:
    channel: AbstractChannel = await connection.channel()
    await channel.declare_exchange(name, kind, durable=True, arguments=dict(arguments or {}))
    await channel.close()


async def _send(exchange: AbstractExchange, message: Message) -> None:
    sent = aio_pika.Message(
        message.body,
        content_type=CONTENT_TYPE,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=message.id,
        type=message.type,
        headers={"partitionkey": message.partition_key},
    )
    await exchange.publish(sent, message.routing_key, mandatory=True, timeout=CONFIRM_SECONDS)
