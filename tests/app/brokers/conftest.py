"""Messages for the tests of publishers. Each test has a tenant of its own, so it reads only its own messages."""

from collections.abc import Callable, Sequence
from threading import Timer
from uuid import uuid4

import pytest

from app.brokers.publisher import BrokerUnavailable, Message, Publisher
from tests.factories.brokers import Broker

TYPE = "wallet.payment.posted.v1"
Make = Callable[..., Sequence[Message]]


@pytest.fixture
def tenant_id() -> str:
    return str(uuid4())


@pytest.fixture
def make(tenant_id: str) -> Make:
    """Messages of the test's tenant, whose wallets take turns."""

    def messages(count: int, *, wallets: int = 7, size: int = 500) -> Sequence[Message]:
        return [
            Message(str(uuid4()), TYPE, f"{tenant_id}.{TYPE}", f"wallet {number % wallets}", b"x" * size)
            for number in range(count)
        ]

    return messages


def publish_through_a_kill(broker: Broker, publisher: Publisher, sent: Sequence[Message], seconds: float) -> int:
    """Publish these messages, kill the broker meanwhile, after so many seconds, and start it again. Returns how many
    were confirmed: some, and not all. As long as the broker is away, a call says so.
    """
    killer = Timer(seconds, broker.kill)
    killer.start()
    done = publisher.publish(sent)
    killer.join()
    assert 0 < done < len(sent)
    with pytest.raises(BrokerUnavailable):
        publisher.publish(sent[done:])
    broker.start()
    return done
