"""Events of movements are made again from the ledger, the same but for their place in the feed."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

from flask import Flask

from app.events.feed import FeedEvent, event_json
from app.events.replay import read_replay
from app.ledger.service import post
from tests.factories.feed import Feed, in_tenant, movement


def start_of(events: list[FeedEvent]) -> datetime:
    return datetime.fromisoformat(events[0].body["time"])


def test_a_replayed_event_is_that_of_the_feed_without_its_place(app: Flask, feed: Feed, wallet_id: UUID) -> None:
    with in_tenant(app):
        for amount_minor in (1, 2, 3):
            post(wallet_id, movement("payment", amount_minor))
    events = feed.of(wallet_id, types=["wallet.payment.posted.v1", "wallet.deposit.posted.v1"])
    with in_tenant(app):
        found, place = read_replay(start_of(events), datetime.now(UTC) + timedelta(minutes=1), limit=100_000)
    replayed = [event for event in found if event.wallet_id == wallet_id]
    assert place is None
    assert [(event.id, event.position) for event in replayed] == [(event.id, 0) for event in events]
    for again, first in zip(replayed, events, strict=True):
        expected = {name: value for name, value in first.body.items() if name != "sequence"}
        assert json.loads(event_json(again, "full")) == expected | {"replay": True}


def test_a_replay_goes_on_page_by_page_within_its_period_and_types(app: Flask, feed: Feed, wallet_id: UUID) -> None:
    with in_tenant(app):
        for amount_minor in range(1, 8):
            post(wallet_id, movement("payment" if amount_minor % 2 else "deposit", amount_minor))
    events = [event for event in feed.of(wallet_id) if ".posted." in event.type]
    start, end = datetime.fromisoformat(events[1].body["time"]), datetime.fromisoformat(events[-1].body["time"])
    with in_tenant(app):
        seen, place = read_replay(start, end, limit=2)
        while place:
            more, place = read_replay(start, end, after=place, limit=2)
            seen += more
        assert [event.id for event in seen if event.wallet_id == wallet_id] == [event.id for event in events[1:-1]]
        deposits, _ = read_replay(start, end, types=["wallet.deposit.posted.v1"])
        own = [event.body["data"]["amount"] for event in deposits if event.wallet_id == wallet_id]
        assert own == ["0.02", "0.04", "0.06"]
