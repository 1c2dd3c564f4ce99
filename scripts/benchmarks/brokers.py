"""Delivery rates of brokers: events that a broker confirms in a second, published by the service's own publishers.

Each broker has two ways: events of many wallets, of which a hundred are under way at once, and events of one wallet,
each of which waits for the one before. The events are of a made-up tenant, and are removed afterwards.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import redis

from app.brokers.connect import publisher_for
from app.brokers.publisher import EVENTS, BrokerMisconfigured, BrokerUnavailable, Message, Publisher
from scripts.benchmarks.measurement import BenchmarkFailed, Figures, Slice, measure
from scripts.benchmarks.posting import Announce

TYPE: Final = "wallet.payment.posted.v1"
EVENT_BYTES: Final = 550  # as a payment's event has
KEPT_EVENTS: Final = 10_000  # in RabbitMQ's queue, so that its memory stays small


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The options."""

    urls: tuple[str, ...]
    seconds: float
    rounds: int
    batch: int

    @property
    def expected_seconds(self) -> float:
        return 2 * len(self.urls) * (self.rounds + 1) * self.seconds


@dataclass(frozen=True, slots=True)
class PublishedBatches:
    """A way (see measurement.Way): batches of events, one after the other. An operation is one batch."""

    name: str
    title: str
    publisher: Publisher
    tenant_id: str
    batch: int
    wallets: int

    def run(self, seconds: float) -> Slice:
        latencies_ms: list[float] = []
        started = now = monotonic()
        while not latencies_ms or now - started < seconds:
            if self.publisher.publish(self._messages()) != self.batch:
                raise BenchmarkFailed(f"{self.title}: the broker did not confirm every event; its log says why.")
            latencies_ms.append((monotonic() - now) * 1000)
            now = monotonic()
        return Slice(now - started, latencies_ms, {}, counted=len(latencies_ms) * self.batch)

    def _messages(self) -> Sequence[Message]:
        key, body = f"{self.tenant_id}.{TYPE}", b"x" * EVENT_BYTES
        return [Message(str(uuid4()), TYPE, key, str(number % self.wallets), body) for number in range(self.batch)]


def run(plan: Plan, announce: Announce) -> Sequence[Figures]:
    """Measure each broker in turns. Raises BenchmarkFailed."""
    with ExitStack() as stack:
        ways = [way for url in plan.urls for way in stack.enter_context(_ways(url, plan.batch))]
        try:
            figures, _ = measure(
                ways, rounds=plan.rounds, seconds=plan.seconds, announce=lambda step: announce(step, plan.seconds)
            )
        except BrokerUnavailable as error:
            raise BenchmarkFailed(str(error)) from None
    return figures


def as_json(figures: Sequence[Figures]) -> dict[str, Any]:
    return {
        "ways": {
            each.name: {
                "median_per_second": each.median_rate,
                "slices_per_second": each.rates,
                "batch_p50_ms": each.p50_ms,
                "batch_p99_ms": each.p99_ms,
            }
            for each in figures
        }
    }


@contextmanager
def _ways(url: str, batch: int) -> Iterator[Sequence[PublishedBatches]]:
    tenant_id, where = str(uuid4()), urlsplit(url)
    place = f"{where.scheme}://{where.hostname}:{where.port}"
    try:
        publisher = publisher_for(url)
        publisher.publish([])
        _receive(url, tenant_id)
    except (BrokerMisconfigured, BrokerUnavailable) as error:
        raise BenchmarkFailed(f"{place}: {error}") from None
    try:
        yield [
            PublishedBatches(f"{place} {name}", f"{place}, {title}", publisher, tenant_id, batch, wallets)
            for name, title, wallets in (("many", "many wallets", batch), ("one", "one wallet", 1))
        ]
    finally:
        publisher.close()
        with suppress(OSError, redis.RedisError):  # A broker that is away has failed the measurement before.
            _remove(url, tenant_id)


def _receive(url: str, tenant_id: str) -> None:
    """RabbitMQ returns events that no queue wants. The other brokers keep them without a receiver."""
    if url.startswith("amqp"):
        asyncio.run(_with_queue(url, tenant_id, is_wanted=True))


def _remove(url: str, tenant_id: str) -> None:
    if url.startswith("amqp"):
        asyncio.run(_with_queue(url, tenant_id, is_wanted=False))
    elif url.startswith("redis"):
        with redis.Redis.from_url(url) as client:
            client.unlink(f"{EVENTS}:{tenant_id}")
    else:
        asyncio.run(_purge(url, tenant_id))


async def _with_queue(url: str, tenant_id: str, *, is_wanted: bool) -> None:
    import aio_pika  # noqa: PLC0415  An extra.

    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        if is_wanted:
            queue = await channel.declare_queue(tenant_id, durable=True, arguments={"x-max-length": KEPT_EVENTS})
            await queue.bind(EVENTS, f"{tenant_id}.#")
        else:
            await channel.queue_delete(tenant_id)


async def _purge(url: str, tenant_id: str) -> None:
    import nats  # noqa: PLC0415  An extra.

    from app.brokers.nats_jetstream import STREAM  # noqa: PLC0415

    async with await nats.connect(url) as client:
        await client.jetstream().purge_stream(STREAM, subject=f"{EVENTS}.{tenant_id}.>")
