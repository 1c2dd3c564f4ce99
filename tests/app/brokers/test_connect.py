"""The scheme of BROKER_URL chooses the publisher."""

import sys

import pytest

from app.brokers.connect import SCHEMES, publisher_for
from app.brokers.nats_jetstream import NatsPublisher
from app.brokers.publisher import BrokerMisconfigured, BrokerUnavailable, Message
from app.brokers.rabbitmq import RabbitPublisher
from app.brokers.redis_streams import RedisPublisher
from tests.factories.ports import free_port

MESSAGE = Message("id", "type", "tenant.type", "wallet", b"{}")


@pytest.mark.parametrize(
    ("scheme", "kind"), [("amqp", RabbitPublisher), ("rediss", RedisPublisher), ("nats", NatsPublisher)]
)
def test_the_scheme_chooses_the_broker(scheme: str, kind: type) -> None:
    publisher = publisher_for(f"{scheme}://mq.example")
    assert isinstance(publisher, kind)
    publisher.close()


@pytest.mark.parametrize("url", ["kafka://mq.example", "mq.example", ""])
def test_another_scheme_is_refused(url: str) -> None:
    with pytest.raises(BrokerMisconfigured, match="amqp, amqps, redis"):
        publisher_for(url)


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("aio_pika", "app.brokers.rabbitmq"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BrokerMisconfigured, match=r"schema-wallet\[rabbitmq\]"):
        publisher_for("amqp://mq.example")


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if not scheme.endswith("s") or scheme == "nats"])
def test_a_broker_that_is_away_is_unavailable_at_once_and_the_publisher_can_be_closed_twice(scheme: str) -> None:
    publisher = publisher_for(f"{scheme}://127.0.0.1:{free_port()}")
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            publisher.publish([MESSAGE])
    publisher.close()
    publisher.close()
