"""Sends messages with many confirmations under way, and keeps the order within a partition.

A message waits for the confirmation of the one before with its partition key. Otherwise a broker that is full could
refuse a message and accept the next one of the same wallet.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from app.brokers.publisher import Message

IN_FLIGHT: Final = 100
Send = Callable[[Message], Awaitable[None]]


async def send_in_lanes(messages: Sequence[Message], send: Send) -> tuple[int, BaseException | None]:
    """Send the messages; `send` returns when its message is confirmed, or raises. After the first error no further
    message is sent, and those under way are awaited. Returns how many were confirmed, from the front, and the error of
    the first that was not.
    """
    sent: list[asyncio.Future[None]] = []
    lanes: dict[str, asyncio.Future[None]] = {}
    failed = asyncio.Event()
    free = asyncio.Semaphore(IN_FLIGHT)

    def done(future: asyncio.Future[None]) -> None:
        free.release()
        if _has_failed(future):
            failed.set()

    for message in messages:
        before = lanes.get(message.partition_key)
        if before is not None and not before.done():
            await asyncio.wait([before])
        await free.acquire()
        # The message before may have failed this very moment, when its callback has not run yet.
        if failed.is_set() or (before is not None and _has_failed(before)):
            break
        future = asyncio.ensure_future(send(message))
        future.add_done_callback(done)
        lanes[message.partition_key] = future
        sent.append(future)
    results = await asyncio.gather(*sent, return_exceptions=True)
    for count, result in enumerate(results):
        if result is not None:
            return count, result
    return len(results), None


def _has_failed(future: asyncio.Future[None]) -> bool:
    return future.cancelled() or future.exception() is not None
