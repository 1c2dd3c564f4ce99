"""Publishing to a real Redis: a batch is stored whole or not at all."""

from collections.abc import Iterator, Sequence

import pytest
import redis

from app.brokers.publisher import EVENTS
from app.brokers.redis_streams import BATCH, RedisPublisher
from tests.app.brokers.conftest import Make, publish_through_a_kill
from tests.factories.brokers import RedisBroker, needs_redis

pytestmark = needs_redis


@pytest.fixture
def publisher(redis_broker: RedisBroker) -> Iterator[RedisPublisher]:
    publisher = RedisPublisher(redis_broker.url)
    yield publisher
    publisher.close()


@pytest.fixture
def client(redis_broker: RedisBroker) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_broker.url) as client:
        yield client


def entries(client: redis.Redis, tenant_id: str) -> Sequence[dict[bytes, bytes]]:
    return [fields for _, fields in client.xrange(f"{EVENTS}:{tenant_id}")]


def test_a_big_batch_arrives_in_order(
    client: redis.Redis, publisher: RedisPublisher, tenant_id: str, make: Make
) -> None:
    sent = make(2 * BATCH + 7, size=20_000)
    assert publisher.publish(sent) == len(sent)
    got = entries(client, tenant_id)
    assert [each[b"id"].decode() for each in got] == [each.id for each in sent]
    assert got[0] == {
        b"id": sent[0].id.encode(),
        b"type": b"wallet.payment.posted.v1",
        b"partitionkey": b"wallet 0",
        b"event": sent[0].body,
    }


def test_a_full_redis_confirms_nothing_of_a_batch_and_takes_it_once_it_has_room(
    client: redis.Redis, publisher: RedisPublisher, tenant_id: str, make: Make
) -> None:
    before = make(1)
    assert publisher.publish(before) == 1
    client.config_set("maxmemory", "1mb")
    sent = make(BATCH + 1)
    assert publisher.publish(sent) == 0
    client.config_set("maxmemory", "0")
    assert publisher.publish(sent) == len(sent)
    assert [each[b"id"].decode() for each in entries(client, tenant_id)] == [each.id for each in (*before, *sent)]


def test_a_stream_that_refuses_stops_only_what_is_behind_it(
    client: redis.Redis, publisher: RedisPublisher, tenant_id: str, make: Make
) -> None:
    client.set(f"{EVENTS}:{tenant_id}", "no stream")
    assert publisher.publish(make(3)) == 0


def test_a_broker_that_is_killed_in_the_middle_has_the_confirmed_front(
    redis_broker: RedisBroker, publisher: RedisPublisher, tenant_id: str, make: Make
) -> None:
    sent = make(60_000)
    done = publish_through_a_kill(redis_broker, publisher, sent, 0.2)
    assert publisher.publish(sent[done : done + 50]) == 50
    with redis.Redis.from_url(redis_broker.url) as client:
        got = list(dict.fromkeys(each[b"id"].decode() for each in entries(client, tenant_id)))
    assert got[: done + 50] == [each.id for each in sent[: done + 50]]
