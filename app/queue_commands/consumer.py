"""Consumes the commands of many tenants from RabbitMQ, each tenant's queue on a connection of its own.

A message that the AMQP library can't decode ends the connection it comes by: so it stops the queue of its sender alone.
Commands run in threads, as many at once as requests of a serving process.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from uuid import UUID

import aio_pika
import psycopg
import structlog
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from flask import Flask

from app.queue_commands.handler import DeadLetter, Wait, handle
from app.queue_commands.service import Outcome
from app.queue_commands.tenant_queue import TenantQueue
from tenant_schemas.errors import TenancyError

CONNECT_SECONDS: Final = 10.0
CONNECTING_AT_ONCE: Final = 10
RECONNECT_SECONDS: Final = 2.0  # Doubled after each connection by which no message could be read.
LONGEST_RECONNECT_SECONDS: Final = 30.0
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
        await Consumer(app, url, choose, pool).run(stop, refresh_seconds)


class Consumer:
    """The queues of all tenants, each with its task and the event that ends it."""

    def __init__(self, app: Flask, url: str, choose: Choose, pool: ThreadPoolExecutor) -> None:
        self._app, self._url, self._choose, self._pool = app, url, choose, pool
        self._connecting = asyncio.Semaphore(CONNECTING_AT_ONCE)
        self._queues: dict[UUID, tuple[asyncio.Task[None], asyncio.Event]] = {}

    async def run(self, stop: asyncio.Event, refresh_seconds: float) -> None:
        """Until the event is set."""
        try:
            while not stop.is_set():
                await self._refresh()
                await _pause(stop, refresh_seconds)
        finally:
            await self._end(list(self._queues))

    async def _refresh(self) -> None:
        """Start the queues of new tenants, and end those of tenants that are not served."""
        try:
            wanted = await asyncio.get_running_loop().run_in_executor(self._pool, self._choose)
        except _DATABASE as error:
            log.warning("tenants_unknown", error=f"{type(error).__name__}: {error}")
            return
        await self._end([each for each in self._queues if each not in wanted])
        for tenant_id in wanted.keys() - self._queues.keys():
            stop = asyncio.Event()
            self._queues[tenant_id] = (asyncio.create_task(self._work(tenant_id, stop)), stop)

    async def _end(self, tenant_ids: list[UUID]) -> None:
        ending = [self._queues.pop(tenant_id) for tenant_id in tenant_ids]
        for _, stop in ending:
            stop.set()
        for task, _ in ending:
            await task

    async def _work(self, tenant_id: UUID, stop: asyncio.Event) -> None:
        """Consume the tenant's queue until the event is set, over as many connections as it takes."""
        pause = RECONNECT_SECONDS
        while True:
            read = asyncio.Event()
            try:
                await self._connect_and_work(tenant_id, stop, read)
                error = "The connection ended."
            except _LOST as lost:
                error = f"{type(lost).__name__}: {lost}"
            except Exception as fault:  # It stops no other tenant's queue.
                log.exception("queue_lost", tenant_id=str(tenant_id))
                error = f"{type(fault).__name__}: {fault}"
            if stop.is_set():
                return
            pause = RECONNECT_SECONDS if read.is_set() else pause
            log.warning("broker_lost", broker="rabbitmq", tenant_id=str(tenant_id), error=error, pause_seconds=pause)
            await _pause(stop, pause)
            pause = min(2 * pause, LONGEST_RECONNECT_SECONDS)

    async def _connect_and_work(self, tenant_id: UUID, stop: asyncio.Event, read: asyncio.Event) -> None:
        """Until the connection ends or `stop` is set. Sets `read` at the first message that could be read."""
        loop = asyncio.get_running_loop()

        async def handle_in_thread(user_id: str | None, body: bytes) -> Outcome | DeadLetter | Wait:
            read.set()
            return await loop.run_in_executor(self._pool, handle, self._app, tenant_id, user_id, body)

        async with self._connecting:
            connection = await aio_pika.connect(self._url, timeout=CONNECT_SECONDS)
        async with connection:
            channel = await connection.channel(on_return_raises=True)
            await TenantQueue(channel, tenant_id, handle_in_thread, stop).work()


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
