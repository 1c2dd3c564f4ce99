"""Events of movements are made again from the ledger, the same but for their place in the feed."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from flask import Flask

from app.events import replay
from app.events.feed import FeedEvent, event_json
from app.events.replay import ReplayPlace, read_replay
from app.ledger.service import post
from tenant_schemas.testing.plugin import Database
from tests.factories.feed import Feed, in_tenant, movement


def start_of(events: list[FeedEvent]) -> datetime:
    return datetime.fromisoformat(events[0].body["time"])


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=1)


def replayed(
    start: datetime, end: datetime, *, limit: int, types: list[str] | None = None, is_beyond_feed: bool = False
) -> list[FeedEvent]:
    """All of the period, page by page."""
    place: ReplayPlace | None = ReplayPlace.before(start)
    events = []
    while place:
        page, place = read_replay(place, end, limit=limit, types=types, is_beyond_feed=is_beyond_feed)
        events += page
    return events


def test_a_replayed_event_is_that_of_the_feed_without_its_place(app: Flask, feed: Feed, wallet_id: UUID) -> None:
    with in_tenant(app):
        for amount_minor in (1, 2, 3):
            post(wallet_id, movement("payment", amount_minor))
    events = feed.of(wallet_id, types=["wallet.payment.posted.v1", "wallet.deposit.posted.v1"])
    with in_tenant(app):
        found = replayed(start_of(events), soon(), limit=100_000)
    own = [event for event in found if event.wallet_id == wallet_id]
    assert [(event.id, event.position) for event in own] == [(event.id, 0) for event in events]
    for again, first in zip(own, events, strict=True):
        expected = {name: value for name, value in first.body.items() if name != "sequence"}
        assert json.loads(event_json(again, "full")) == expected | {"replay": True}


def test_a_replay_goes_on_page_by_page_within_its_period_and_types(
    app: Flask, feed: Feed, wallet_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_tenant(app):
        for amount_minor in range(1, 8):
            post(wallet_id, movement("payment" if amount_minor % 2 else "deposit", amount_minor))
    events = [event for event in feed.of(wallet_id) if ".posted." in event.type]
    start, end = datetime.fromisoformat(events[1].body["time"]), datetime.fromisoformat(events[-1].body["time"])
    monkeypatch.setattr(replay, "MAX_SCANNED", 3)  # A page of deposits is found in several looks.
    with in_tenant(app):
        seen = replayed(start, end, limit=2)
        assert [event.id for event in seen if event.wallet_id == wallet_id] == [event.id for event in events[1:-1]]
        deposits = replayed(start, end, limit=2, types=["wallet.deposit.posted.v1"])
        own = [event.body["data"]["amount"] for event in deposits if event.wallet_id == wallet_id]
        assert own == ["0.02", "0.04", "0.06"]


def test_beyond_the_feed_are_the_movements_that_it_has_no_event_of(
    app: Flask, database: Database, feed: Feed, wallet_id: UUID
) -> None:
    with in_tenant(app):
        for _ in range(3):
            post(wallet_id, movement("payment", 1))
    deposit, first, second, *_ = [event for event in feed.of(wallet_id) if ".posted." in event.type]
    forget = "DELETE FROM eur_schema.events WHERE id = ANY (%s)"
    give_back = (
        "INSERT INTO eur_schema.events (id, type, wallet_id, at, position) VALUES (%s, %s, %s, clock_timestamp(), %s)"
    )
    with database.as_superuser() as connection:
        connection.execute(forget, ([deposit.id, second.id],))
    try:
        with in_tenant(app):
            found = replayed(start_of([deposit]), soon(), limit=1, is_beyond_feed=True)
    finally:
        with database.as_superuser() as connection:
            for gone in (deposit, second):
                connection.execute(give_back, (gone.id, gone.type, wallet_id, gone.position))
    assert [event.id for event in found] == [deposit.id, second.id]
    assert first.id not in {event.id for event in found}
