"""Publishes to NATS JetStream: subject `wallet.events.<tenant id>.<type>`, acknowledgements, `Nats-Msg-Id`.

JetStream keeps an event once if it comes again within the stream's window for duplicates, which is two minutes by
default.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import nats
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StorageType, StreamConfig

from app.brokers.lanes import send_in_lanes
from app.brokers.loop_thread import LoopThread
from app.brokers.publisher import CONFIRM_SECONDS, CONNECT_SECONDS, CONTENT_TYPE, EVENTS, BrokerUnavailable, Message

STREAM: Final = "WALLET_EVENTS"
_FAULTS: Final = (nats.errors.Error, OSError, TimeoutError)

log = structlog.get_logger(__name__)


async def _ignore_error(_: Exception) -> None:
    """The library would log each error, and raises it too."""


# One try: the library's own reconnecting would hold messages back and send them out of the order of `publish`.
_CONNECTION: Final[dict[str, Any]] = {
    "allow_reconnect": False,
    "max_reconnect_attempts": 1,
    "reconnect_time_wait": 0,
    "connect_timeout": int(CONNECT_SECONDS),
    "error_cb": _ignore_error,
}


class NatsPublisher:
    """See Publisher. The first connection makes the stream if it is missing: in files, and when it is full it refuses
    events instead of dropping old ones.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._loop = LoopThread("nats")
        self._client: Client | None = None
        self._connection: tuple[JetStreamContext, asyncio.Future[None]] | None = None

    def publish(self, messages: Sequence[Message]) -> int:
        return self._loop.run(self._publish(messages))

    def close(self) -> None:
        self._loop.run(self._drop())
        self._loop.close()

    async def _publish(self, messages: Sequence[Message]) -> int:
        jetstream, lost = await self._connected()
        count, fault = await send_in_lanes(messages, partial(_send, jetstream, lost))
        if fault is not None:
            log.warning("broker_did_not_confirm", broker="nats", event_id=messages[count].id, error=str(fault))
            if not isinstance(fault, nats.js.errors.APIError):
                await self._drop()
            if count == 0 and isinstance(fault, TimeoutError):
                raise BrokerUnavailable("NATS confirms nothing: it hangs, or has no quorum.")
        return count

    async def _connected(self) -> tuple[JetStreamContext, asyncio.Future[None]]:
        """The connection, and what is done when it is lost."""
        if self._connection is not None and not self._connection[1].done():
            return self._connection
        await self._drop()
        try:
            lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._client = await nats.connect(self._url, **_CONNECTION, disconnected_cb=partial(_note_loss, lost))
            jetstream = self._client.jetstream()
            await _ensure_stream(jetstream)
        except _FAULTS as error:
            await self._drop()
            raise BrokerUnavailable(f"NATS can't be reached: {error}") from error
        self._connection = (jetstream, lost)
        return self._connection

    async def _drop(self) -> None:
        client, self._client, self._connection = self._client, None, None
        if client is not None:
            try:
                await client.close()
            except _FAULTS as error:
                log.debug("broker_connection_lost", broker="nats", error=str(error))


async def _ensure_stream(jetstream: JetStreamContext) -> None:
    try:
        await jetstream.find_stream_name_by_subject(f"{EVENTS}.>")
    except nats.js.errors.NotFoundError:
        await jetstream.add_stream(
            StreamConfig(name=STREAM, subjects=[f"{EVENTS}.>"], storage=StorageType.FILE, discard=DiscardPolicy.NEW)
        )


async def _note_loss(lost: asyncio.Future[None]) -> None:
    if not lost.done():
        lost.set_result(None)


async def _send(jetstream: JetStreamContext, lost: asyncio.Future[None], message: Message) -> None:
    """The library would wait for an acknowledgement until the time is over, also on a connection that has ended."""
    headers = {
        "Nats-Msg-Id": message.id,
        "Content-Type": CONTENT_TYPE,
        "type": message.type,
        "partitionkey": message.partition_key,
    }
    subject = f"{EVENTS}.{message.routing_key}"
    sent = jetstream.publish(subject, message.body, timeout=CONFIRM_SECONDS, headers=headers)
    acknowledged = asyncio.ensure_future(sent)
    both: set[asyncio.Future[Any]] = {acknowledged, lost}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if not acknowledged.done():
        acknowledged.cancel()
        raise ConnectionResetError("The connection to NATS ended before the acknowledgement.")
    acknowledged.result()
