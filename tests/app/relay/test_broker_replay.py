"""A period is published once more: from the ledger what the feed has no more, and then the feed's own events."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from flask import Flask

from app.brokers.publisher import Message
from app.ledger.service import post
from app.relay import broker_replay
from app.relay.broker_replay import EventRefused, replay_to_broker
from tenant_schemas.testing.plugin import Database
from tests.factories.feed import Feed, in_tenant, movement
from tests.factories.people import People

LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


class Broker:
    """Confirms what `accepts` says, and keeps what it got."""

    def __init__(self, accepts: Callable[[str], bool] = lambda _: True) -> None:
        self.got: list[dict[str, Any]] = []
        self.accepts = accepts

    def publish(self, messages: Sequence[Message]) -> int:
        for count, message in enumerate(messages):
            if not self.accepts(message.id):
                return count
            self.got.append(orjson.loads(message.body))
        return len(messages)

    def close(self) -> None:
        pass


@pytest.fixture
def told(fresh_app: Flask, fresh_database: Database, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """All events of the tenant, of which the feed has the newest three only."""
    monkeypatch.setattr(broker_replay, "BATCH", 2)
    people, feed = People(fresh_app), Feed(fresh_app, "eur")
    wallet_id = people.wallet(people.make(eur="member"), "eur", balance_minor=100)
    with in_tenant(fresh_app):
        for _ in range(7):
            post(wallet_id, movement("payment", 1))
    told = [event.body for event in feed.of(wallet_id)]
    with fresh_database.as_superuser() as connection:
        connection.execute("UPDATE eur_schema.events_head SET trimmed_to = position - 3")
        connection.execute(
            "DELETE FROM eur_schema.events WHERE position <= (SELECT trimmed_to FROM eur_schema.events_head)"
        )
    return told


def replay(app: Flask, broker: Broker, start: datetime = LONG_AGO, end: datetime | None = None) -> list[str]:
    """Ids of what was confirmed."""
    with in_tenant(app) as tenant:
        found = replay_to_broker(broker, tenant, start, end or datetime.now(UTC) + timedelta(minutes=1))
        return [str(event.id) for event in found]


def remade(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "sequence"} | {"replay": True}


def test_all_movements_come_in_order_and_each_once(fresh_app: Flask, told: list[dict[str, Any]]) -> None:
    broker = Broker()
    movements = [event for event in told[:-3] if ".posted." in event["type"]]
    assert replay(fresh_app, broker) == [event["id"] for event in (*movements, *told[-3:])]
    assert broker.got == [*map(remade, movements), *told[-3:]]


def test_movements_from_before_the_clock_was_set_back_come_too(
    fresh_app: Flask, fresh_database: Database, told: list[dict[str, Any]]
) -> None:
    """A wallet's movements are never younger than its last one, so they stay ahead of the clock. The trimmed ones of
    them are in no feed.
    """
    with fresh_database.as_superuser() as connection:
        ahead = "created_at = created_at + interval '3 hours'"
        connection.execute(
            "SET LOCAL session_replication_role TO replica;"
            f" UPDATE eur_schema.wallet_transactions SET {ahead} WHERE id NOT IN (SELECT id FROM eur_schema.events)"
        )
    movements = {event["id"] for event in told if ".posted." in event["type"]}
    assert set(replay(fresh_app, Broker(), end=datetime.now(UTC) + timedelta(days=1))) >= movements


def test_a_refused_event_ends_the_replay_and_the_next_goes_on(fresh_app: Flask, told: list[dict[str, Any]]) -> None:
    refused = told[-2]
    broker = Broker(lambda id_: id_ != refused["id"])
    with pytest.raises(EventRefused, match=refused["id"]):
        replay(fresh_app, broker)
    assert broker.got[-1] == told[-3]
    last = datetime.fromisoformat(broker.got[-1]["time"])
    assert set(replay(fresh_app, Broker(), last)) >= {event["id"] for event in told[-3:]}


def test_a_period_without_events_is_empty(fresh_app: Flask, told: list[dict[str, Any]]) -> None:
    assert replay(fresh_app, Broker(), end=LONG_AGO + timedelta(days=1)) == []
