"""Consumes the commands of many tenants from RabbitMQ, each tenant's queue by itself.

Commands run in threads, as many at once as requests of a serving process. A broker that is lost is connected to again.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from uuid import UUID

import aio_pika
import psycopg
import structlog
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from flask import Flask

from app.queue_commands.handler import DeadLetter, Wait, handle
from app.queue_commands.service import Outcome
from app.queue_commands.tenant_queue import TenantQueue, declare_dead_letters
from tenant_schemas.errors import TenancyError

CONNECT_SECONDS: Final = 10.0
RECONNECT_SECONDS: Final = 2.0
REFRESH_SECONDS: Final = 15.0  # between two looks for tenants
_LOST: Final = (*CONNECTION_EXCEPTIONS, TimeoutError)
_DATABASE: Final = (psycopg.Error, TenancyError)

log = structlog.get_logger(__name__)
Choose = Callable[[], Mapping[UUID, str]]


async def consume(
    app: Flask,
    url: str,
    choose: Choose,
    stop: asyncio.Event,
    *,
    threads: int = 8,
    refresh_seconds: float = REFRESH_SECONDS,
) -> None:
    """Consume the queues of the tenants that `choose` returns, until the event is set. Commands that run by then are
    finished. Errors of broker and database are logged and tried again.
    """
    with ThreadPoolExecutor(threads, "commands") as pool:
        while not stop.is_set():
            try:
                async with await aio_pika.connect(url, timeout=CONNECT_SECONDS) as connection:
                    await Consumer(app, connection, choose, pool).run(stop, refresh_seconds)
            except _LOST as error:
                log.warning("broker_lost", broker="rabbitmq", error=f"{type(error).__name__}: {error}")
                await _pause(stop, RECONNECT_SECONDS)


class Consumer:
    """The queues of all tenants on one connection."""

    def __init__(self, app: Flask, connection: AbstractConnection, choose: Choose, pool: ThreadPoolExecutor) -> None:
        self._app, self._connection, self._choose, self._pool = app, connection, choose, pool
        self._queues: dict[UUID, tuple[asyncio.Task[None], asyncio.Event]] = {}

    async def run(self, stop: asyncio.Event, refresh_seconds: float) -> None:
        """Until the event is set, or the connection is lost: then raises ConnectionError."""
        ended = asyncio.Event()
        self._connection.close_callbacks.add(lambda *_: ended.set())
        waits = [asyncio.ensure_future(event.wait()) for event in (stop, ended)]
        try:
            channel = await self._connection.channel()
            await declare_dead_letters(channel)
            await channel.close()
            while not stop.is_set() and not ended.is_set():
                await self._refresh()
                await asyncio.wait(waits, timeout=refresh_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await self._end(list(self._queues))
        if not stop.is_set():
            raise ConnectionResetError("The connection to RabbitMQ ended.")

    async def _refresh(self) -> None:
        """Start the queues of new tenants and those that have failed, and end those of tenants that are not served."""
        try:
            wanted = await asyncio.get_running_loop().run_in_executor(self._pool, self._choose)
        except _DATABASE as error:
            log.warning("tenants_unknown", error=f"{type(error).__name__}: {error}")
            return
        over = [each for each, (task, _) in self._queues.items() if task.done() or each not in wanted]
        await self._end(over)
        for tenant_id in wanted.keys() - self._queues.keys():
            stop = asyncio.Event()
            self._queues[tenant_id] = (asyncio.create_task(self._work(tenant_id, stop)), stop)

    async def _end(self, tenant_ids: list[UUID]) -> None:
        ending = [self._queues.pop(tenant_id) for tenant_id in tenant_ids]
        for _, stop in ending:
            stop.set()
        for task, _ in ending:
            try:
                await task
            except Exception as error:  # It stops no other queue; the next refresh starts it again.
                log.exception("queue_lost", error=f"{type(error).__name__}: {error}")

    async def _work(self, tenant_id: UUID, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()

        async def handle_in_thread(user_id: str | None, body: bytes) -> Outcome | DeadLetter | Wait:
            return await loop.run_in_executor(self._pool, handle, self._app, tenant_id, user_id, body)

        channel = await self._connection.channel(on_return_raises=True)
        await TenantQueue(channel, tenant_id, handle_in_thread, stop).work()


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
