"""A feed loses its old events, and never those that the broker or a webhook needs; failures are counted."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from flask import Flask

from app.auth.actors import SYSTEM
from app.db import db
from app.ledger.service import post
from app.relay import upkeep
from app.relay.broker_sink import SINK
from app.relay.cursors import move_cursor, take_cursor
from app.relay.upkeep import Upkeep
from app.webhooks import service
from tenant_schemas.testing.plugin import Database
from tests.factories.feed import Feed, in_tenant, movement
from tests.factories.metrics import figure
from tests.factories.people import People

RETENTION = timedelta(days=30)


@pytest.fixture
def feed(fresh_app: Flask, fresh_database: Database) -> Feed:
    """Five events, all older than a month."""
    people, feed = People(fresh_app), Feed(fresh_app, "eur")
    wallet_id = people.wallet(people.make(eur="member"), "eur", balance_minor=1000)
    with in_tenant(fresh_app):
        for _ in range(3):
            post(wallet_id, movement("payment", 1))
    feed.stamp()
    fresh_database.as_superuser().execute("UPDATE eur_schema.events SET at = at - interval '31 days'")
    return feed


def tend(feed: Feed, *, has_broker: bool = True) -> bool:
    with in_tenant(feed.app) as tenant:
        return Upkeep(RETENTION, has_broker=has_broker).tend(tenant)


def publish_up_to(feed: Feed, position: int) -> None:
    """As far as the broker's cursor is concerned."""
    with in_tenant(feed.app):
        cursor = take_cursor(SINK, uuid4())
        assert cursor is not None
        move_cursor(cursor, position)


def make_webhook(feed: Feed) -> UUID:
    chosen = {"description": None, "types": [], "payload": "full", "delivery_order": "wallet"}
    with in_tenant(feed.app):
        made, _ = service.create_webhook(chosen | {"url": "https://hooks.example/hook"}, actor=SYSTEM)
        webhook_id = made.id
        db.session.commit()
    return webhook_id


def webhook_is_at(database: Database, position: int) -> None:
    database.as_superuser().execute("UPDATE eur_schema.webhook_endpoints SET position = %s", (position,))


def trimmed_to(feed: Feed) -> int:
    return feed.head().trimmed_to


def test_what_the_broker_has_not_is_kept(feed: Feed) -> None:
    publish_up_to(feed, 0)
    assert not tend(feed)
    assert trimmed_to(feed) == 0
    publish_up_to(feed, 3)
    tend(feed)
    assert trimmed_to(feed) == 3
    publish_up_to(feed, 5)
    tend(feed)
    assert trimmed_to(feed) == 5


def test_without_a_broker_a_cursor_that_one_has_left_keeps_nothing(feed: Feed) -> None:
    publish_up_to(feed, 2)
    tend(feed, has_broker=False)
    assert trimmed_to(feed) == 5


def test_a_cursor_does_not_pass_what_is_not_there(feed: Feed) -> None:
    """Or the broker would miss the events that come there."""
    owner = uuid4()
    with in_tenant(feed.app):
        for position, noted in ((6, 0), (5, 5)):
            cursor = take_cursor(SINK, owner)
            assert cursor is not None
            move_cursor(cursor, position)
            moved = take_cursor(SINK, owner)
            assert moved is not None
            assert moved.position == noted


def test_the_slowest_of_broker_and_webhooks_decides(feed: Feed, fresh_database: Database) -> None:
    publish_up_to(feed, 4)
    make_webhook(feed)
    webhook_is_at(fresh_database, 1)
    tend(feed)
    assert trimmed_to(feed) == 1
    webhook_is_at(fresh_database, 5)
    tend(feed)
    assert trimmed_to(feed) == 4


def test_a_turn_that_trims_all_it_may_has_more_to_do(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "MAX_TRIMMED", 2)
    assert [tend(feed) for _ in range(3)] == [True, True, False]
    assert trimmed_to(feed) == 5


def test_the_gauges_have_the_failures_of_all_tenants_until_a_tenant_is_gone(
    feed: Feed, fresh_database: Database
) -> None:
    own = Upkeep(RETENTION, has_broker=False)
    webhook_id = make_webhook(feed)
    fresh_database.as_superuser().execute(
        "INSERT INTO eur_schema.webhook_lanes (endpoint_id, key, is_ordered, position, attempts, next_at)"
        " SELECT %s, gen_random_uuid(), true, 1, 1, now() FROM generate_series(1, 2)",
        (webhook_id,),
    )
    for slug in ("eur", "km"):
        with in_tenant(feed.app, slug) as tenant:
            own.count_failures(tenant)
    assert figure("wallet_webhook_lanes_open") == 2
    own.forget_all_but([tenant.id])
    assert figure("wallet_webhook_lanes_open") == 0


def test_failures_are_counted_once_a_minute_however_often_is_delivered(feed: Feed) -> None:
    """Three counts of a million lanes after each turn would slow all deliveries."""
    seconds = 0.0
    own = Upkeep(RETENTION, has_broker=False, now=lambda: seconds)
    with in_tenant(feed.app) as tenant:
        own.note_delivery(tenant)
        assert own.take_uncounted() == [tenant]
        own.count_failures(tenant)
        own.note_delivery(tenant)
        seconds = 59.0
        assert own.take_uncounted() == []
        seconds = 60.0
        assert own.take_uncounted() == [tenant]
        assert own.take_uncounted() == []
        own.note_delivery(tenant)
        own.forget_all_but([])
        assert own.take_uncounted() == []
