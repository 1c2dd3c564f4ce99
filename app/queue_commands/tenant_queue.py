"""One tenant's queue of commands in RabbitMQ: its messages are handled one after the other, in their order.

A message is acknowledged when its outcome is committed. If the consumer dies before, the message is delivered again.
The queue has one active consumer, over all processes; another one takes over.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

from app.metrics.definitions import COMMANDS as COMMANDS_BY_OUTCOME
from app.queue_commands.handler import DeadLetter, Wait
from app.queue_commands.service import Outcome

COMMANDS: Final = "wallet.commands"
DEAD: Final = f"{COMMANDS}.dead"
# A policy of the broker (delivery-limit) may set a lower limit.
MAX_DELIVERIES: Final = 20
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

    async def work(self) -> None:
        """Consume until the event is set or the channel is closed. The message in hand is finished first, unless it has
        to wait: then it goes back.
        """
        self._channel.close_callbacks.add(lambda *_: self._stop.set())
        await self._channel.set_qos(prefetch_count=1)
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
            },
        )
        await queue.bind(exchange)
        return queue

    async def _next(self, inbox: asyncio.Queue[AbstractIncomingMessage]) -> AbstractIncomingMessage | None:
        """None when it is time to end."""
        got, stopped = asyncio.ensure_future(inbox.get()), asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({got, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if self._stop.is_set():
            got.cancel()
            return None
        return got.result()

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
        if int(str(message.headers.get("x-delivery-count", 0))) + 1 >= MAX_DELIVERIES:
            await self._bury(message, DeadLetter("delivery_limit", error))
            await message.ack()
        else:
            await self._pause(FAILURE_SECONDS)
            await message.nack(requeue=True)

    async def _bury(self, message: AbstractIncomingMessage, why: DeadLetter) -> None:
        """Publish a copy to the dead letters, with the reason. If that fails the message is delivered again, so in the
        worst case it is there twice.
        """
        COMMANDS_BY_OUTCOME.labels("unknown", "dead_lettered").inc()
        log.warning("command_dead_lettered", queue=self._name, reason=why.reason, detail=why.detail)
        dead = await self._channel.get_exchange(DEAD, ensure=False)
        told = {"x-queue": self._name, "x-reason": why.reason, "x-detail": why.detail, "x-user-id": message.user_id}
        copy = aio_pika.Message(
            message.body,
            headers={**message.headers, **told},
            message_id=message.message_id,
            content_type=message.content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await dead.publish(copy, self._name, mandatory=True)

    async def _pause(self, seconds: float) -> bool:
        """Whether it is time to end."""
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return False
        return True


async def declare_dead_letters(channel: AbstractChannel) -> None:
    """The exchange and the queue of messages that can't be run, of all tenants: for the operator."""
    exchange = await channel.declare_exchange(DEAD, aio_pika.ExchangeType.FANOUT, durable=True)
    queue = await channel.declare_queue(DEAD, durable=True, arguments={"x-queue-type": "quorum"})
    await queue.bind(exchange)
