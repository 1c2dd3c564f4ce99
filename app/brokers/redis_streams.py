"""Publishes to Redis streams, one stream for each tenant: `wallet.events:<tenant id>`.

An entry has the fields `id`, `type`, `partitionkey` and `event`. Nothing here shortens a stream: the operator does
(XTRIM), once the consumers have read it. Redis keeps what it has confirmed through a crash only with `appendonly yes`
and `appendfsync always`.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

import redis
import structlog
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from app.brokers.publisher import CONFIRM_SECONDS, CONNECT_SECONDS, EVENTS, BrokerUnavailable, Message

BATCH: Final = 100
log = structlog.get_logger(__name__)


class RedisPublisher:
    """See Publisher. A batch of one tenant is one MULTI … EXEC: Redis has all of it, or nothing."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(
            url,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=CONFIRM_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )

    def publish(self, messages: Sequence[Message]) -> int:
        count = 0
        for batch in _batches(messages):
            try:
                self._add(batch)
            except RedisError as error:
                if count == 0 and isinstance(error, RedisConnectionError | RedisTimeoutError):
                    raise BrokerUnavailable(f"Redis can't be reached: {error}") from error
                log.warning("broker_did_not_confirm", broker="redis", event_id=batch[0].id, error=str(error))
                return count
            count += len(batch)
        return count

    def close(self) -> None:
        self._client.close()

    def _add(self, batch: Sequence[Message]) -> None:
        stream = f"{EVENTS}:{batch[0].tenant_id}"
        with self._client.pipeline(transaction=True) as pipeline:
            for message in batch:
                pipeline.xadd(
                    stream,
                    {
                        "id": message.id,
                        "type": message.type,
                        "partitionkey": message.partition_key,
                        "event": message.body,
                    },
                )
            pipeline.execute()


def _batches(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    for _, of_tenant in groupby(messages, key=lambda message: message.tenant_id):
        run = list(of_tenant)
        for start in range(0, len(run), BATCH):
            yield run[start : start + BATCH]
