"""Messages for the tests of publishers. Each test has a tenant of its own, so it reads only its own messages."""

from collections.abc import Callable, Sequence
from uuid import uuid4

import pytest

from app.brokers.publisher import Message

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
