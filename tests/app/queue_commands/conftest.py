"""A service of the tenant eur, and what becomes of its messages."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from app.events.feed import FeedEvent
from app.queue_commands.handler import DeadLetter, Wait, handle
from app.queue_commands.service import Outcome
from tests.factories.commands import Sender, make_sender
from tests.factories.feed import Feed
from tests.factories.people import People

Handle = Callable[[bytes], Outcome | DeadLetter | Wait]


@pytest.fixture
def sender(app: Flask) -> Sender:
    return make_sender(app)


@pytest.fixture
def send(app: Flask, sender: Sender) -> Handle:
    """Handle a message of the sender, as the consumer does."""
    return lambda body: handle(app, sender.tenant_id, sender.user_id, body)


@pytest.fixture
def feed(app: Flask) -> Feed:
    return Feed(app, "eur")


@pytest.fixture
def wallet_id(people: People) -> UUID:
    """A wallet with 100.00 EUR."""
    return people.wallet(people.make(eur="member"), "eur", balance_minor=10_000)


def answers(events: list[FeedEvent]) -> list[tuple[str, Mapping[str, Any]]]:
    """Types and data of the events that answer commands."""
    return [
        (event.type, event.body["data"]) for event in events if event.type.split(".")[-2] in {"completed", "refused"}
    ]
