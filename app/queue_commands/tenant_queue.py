"""One tenant's queue of commands in RabbitMQ: its messages are handled one after the other, in their order.

A message is acknowledged when its outcome is committed. If the consumer dies before, the message is delivered again.
The queue has one active consumer, over all processes; another one takes over.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import UUID

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

from app.metrics.definitions import COMMANDS as COMMANDS_BY_OUTCOME
from app.queue_commands.handler import DeadLetter, Wait
from app.queue_commands.messages import MAX_BYTES
from app.queue_commands.service import Outcome

COMMANDS: Final = "wallet.commands"
DEAD: Final = f"{COMMANDS}.dead"
# Of a command that fails. A policy of the broker (delivery-limit) may set a lower limit.
MAX_DELIVERIES: Final = 20
# Of any message, also one that ends the connection before it is read. Restarts during a long wait count too.
DELIVERY_LIMIT: Final = 50
# Of a dead letter: each look of the operator is a delivery. RabbitMQ 4 deletes a message after 20 by default.
LOOKS: Final = 1_000_000
# RabbitMQ takes a message back from a consumer that holds it longer. A command may wait for the database.
CONSUMER_TIMEOUT_MS: Final = 7 * 24 * 3600 * 1000
DETAIL_LENGTH: Final = 1000
FAILURE_SECONDS: Final = 1.0  # between a failure and the next delivery

log = structlog.get_logger(__name__)
Handle = Callable[[str | None, bytes], Awaitable[Outcome | DeadLetter | Wait]]


class TenantQueue:
    """The consumer of a tenant's queue on a channel of its own."""

    def __init__(self, channel: AbstractChannel, tenant_id: UUID, handle: Handle, stop: asyncio.Event) -> None:
        self._channel = channel
        self._name = f"{COMMANDS}.{tenant_id}"
        self._handle = handle
        self._stop = stop
        self._closed = asyncio.Event()

    async def work(self) -> None:
        """Consume until the event is set or the channel is closed. The message in hand is finished first, unless it has
        to wait: then it goes back.
        """
        COMMANDS_BY_OUTCOME.labels("unknown", "dead_lettered")  # At 0, so that the first one is an increase.
        self._channel.close_callbacks.add(lambda *_: self._closed.set())
        await self._channel.set_qos(prefetch_count=1)
        await declare_dead_letters(self._channel)
        queue = await self._declare()
        inbox: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await queue.consume(inbox.put)
        while (message := await self._next(inbox)) is not None:
            await self._settle(message)
        if not self._channel.is_closed:
            await self._channel.close()

    async def _declare(self) -> AbstractQueue:
        """The tenant's exchange and queue. A sender may write to the exchange of its tenant only."""
        exchange = await self._channel.declare_exchange(self._name, aio_pika.ExchangeType.FANOUT, durable=True)
        queue = await self._channel.declare_queue(
            self._name,
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-single-active-consumer": True,
                "x-dead-letter-exchange": DEAD,
                "x-delivery-limit": DELIVERY_LIMIT,
                "x-consumer-timeout": CONSUMER_TIMEOUT_MS,
            },
        )
        await queue.bind(exchange)
        return queue

    async def _next(self, inbox: asyncio.Queue[AbstractIncomingMessage]) -> AbstractIncomingMessage | None:
        """None when it is time to end."""
        got = asyncio.ensure_future(inbox.get())
        await self._ended(got)
        if self._is_over():
            got.cancel()
            return None
        return got.result()

    def _is_over(self) -> bool:
        return self._stop.is_set() or self._closed.is_set()

    async def _ended(self, *others: asyncio.Future[Any], timeout: float | None = None) -> None:
        """Wait until it is time to end, one of the others is done, or the time is up."""
        ends = [asyncio.ensure_future(event.wait()) for event in (self._stop, self._closed)]
        await asyncio.wait({*ends, *others}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()

    async def _settle(self, message: AbstractIncomingMessage) -> None:
        while True:
            try:
                verdict = await self._handle(message.user_id, message.body)
            except Exception as error:
                log.exception("command_failed", queue=self._name, message_id=message.message_id)
                await self._put_back(message, f"{type(error).__name__}: {error}")
                return
            if not isinstance(verdict, Wait):
                break
            if await self._pause(verdict.seconds):
                await message.nack(requeue=True)
                return
        if isinstance(verdict, DeadLetter):
            await self._bury(message, verdict)
        await message.ack()

    async def _put_back(self, message: AbstractIncomingMessage, error: str) -> None:
        """Have the message delivered again after a pause, or bury it if that has happened too often."""
        if _deliveries(message) >= MAX_DELIVERIES:
            await self._bury(message, DeadLetter("delivery_limit", error))
            await message.ack()
        else:
            await self._pause(FAILURE_SECONDS)
            await message.nack(requeue=True)

    async def _bury(self, message: AbstractIncomingMessage, why: DeadLetter) -> None:
        """Publish a copy to the dead letters, with the reason. If that fails the message is delivered again, so in the
        worst case it is there twice. The copy has no header of the sender, and of a body that is too long to be a
        command the beginning.
        """
        COMMANDS_BY_OUTCOME.labels("unknown", "dead_lettered").inc()
        log.warning("command_dead_lettered", queue=self._name, reason=why.reason, detail=why.detail)
        dead = await self._channel.get_exchange(DEAD, ensure=False)
        copy = aio_pika.Message(
            message.body[:MAX_BYTES],
            headers={
                "x-queue": self._name,
                "x-reason": why.reason,
                "x-detail": why.detail[:DETAIL_LENGTH],
                "x-user-id": message.user_id,
                "x-body-bytes": len(message.body),
            },
            message_id=message.message_id,
            content_type=message.content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await dead.publish(copy, self._name, mandatory=True)

    async def _pause(self, seconds: float) -> bool:
        """Whether it is time to end."""
        await self._ended(timeout=seconds)
        return self._is_over()


def _deliveries(message: AbstractIncomingMessage) -> int:
    """This one included. RabbitMQ counts those before it, but a header of the sender may have the same name."""
    count = message.headers.get("x-delivery-count", 0)
    return count + 1 if isinstance(count, int) else 1


async def declare_dead_letters(channel: AbstractChannel) -> None:
    """The exchange and the queue of messages that can't be run, of all tenants: for the operator."""
    exchange = await channel.declare_exchange(DEAD, aio_pika.ExchangeType.FANOUT, durable=True)
    arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": LOOKS}
    queue = await channel.declare_queue(DEAD, durable=True, arguments=arguments)
    await queue.bind(exchange)
