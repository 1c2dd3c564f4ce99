"""Old events are deleted from the feed's beginning, and never those that a reader still needs."""

from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from flask import Flask

from app.events.errors import FeedTrimmed
from app.events.retention import trim_events
from app.ledger.service import post
from tenant_schemas.testing.plugin import Database
from tests.factories.feed import Feed, in_tenant, movement
from tests.factories.people import People

MONTH = timedelta(days=30)


@pytest.fixture
def feed(fresh_app: Flask, fresh_database: Database) -> Feed:
    """Eight events, of which all but the fifth and the last two are older than a month."""
    people, feed = People(fresh_app), Feed(fresh_app, "eur")
    wallet_id = people.wallet(people.make(eur="member"), "eur", balance_minor=1000)
    pay(fresh_app, wallet_id, 6)
    feed.stamp()
    old = "UPDATE eur_schema.events SET at = at - interval '31 days' WHERE position NOT IN (5, 7, 8)"
    superuser = fresh_database.as_superuser()
    superuser.execute(old)
    superuser.execute("SET session_replication_role TO replica")
    for change in ("wallet_transactions SET created_at = created_at", "events_head SET started_at = started_at"):
        superuser.execute(f"UPDATE eur_schema.{change} - interval '31 days'".encode())
    return feed


def pay(app: Flask, wallet_id: UUID, times: int) -> None:
    with in_tenant(app):
        for _ in range(times):
            post(wallet_id, movement("payment", 1))


def trim(feed: Feed, max_events: int = 100) -> int:
    with in_tenant(feed.app):
        return trim_events(MONTH, max_events, has_broker=True)


def positions(feed: Feed) -> list[int]:
    return [event.position for event in feed.read(after=feed.head().trimmed_to)]


def test_only_the_old_beginning_of_the_feed_goes(feed: Feed, fresh_database: Database) -> None:
    """The sixth event is as old, but the fifth stands before it."""
    assert trim(feed) == 4
    assert (feed.head().trimmed_to, positions(feed)) == (4, [5, 6, 7, 8])
    assert trim(feed) == 0
    with pytest.raises(FeedTrimmed):
        feed.read(after=3)
    superuser = fresh_database.as_superuser()
    assert superuser.execute("SELECT count(*) FROM eur_schema.events WHERE position <= 4").fetchone() == (0,)
    assert fresh_database.as_tenant("eur").execute("SELECT * FROM events_audit_v1()").fetchall() == []


def test_what_the_broker_still_needs_stays_also_if_the_tenants_login_asks(feed: Feed, fresh_database: Database) -> None:
    fresh_database.as_superuser().execute(
        "INSERT INTO eur_schema.event_cursors SELECT 'broker', feed_id, 2, feed_id, now() FROM eur_schema.events_head"
    )
    tenant = fresh_database.as_tenant("eur")
    assert tenant.execute("SELECT events_trim_v1('30 days', true, 100)").fetchone() == (2,)
    assert tenant.execute("SELECT events_trim_v1('30 days', true, 100)").fetchone() == (0,)
    assert positions(feed) == [3, 4, 5, 6, 7, 8]


def test_a_call_deletes_no_more_than_asked_for(feed: Feed) -> None:
    assert [trim(feed, max_events=3) for _ in range(3)] == [3, 1, 0]


def test_an_event_without_a_number_stays(feed: Feed, fresh_database: Database) -> None:
    (wallet_id,) = fresh_database.as_tenant("eur").execute("SELECT id FROM wallets").fetchone() or ()
    pay(feed.app, wallet_id, 1)
    fresh_database.as_superuser().execute("UPDATE eur_schema.events SET at = '2020-01-01'")
    assert trim(feed) == 8
    assert feed.stamp() == 1
    assert positions(feed) == [9]


def test_nobody_deletes_what_is_younger_than_a_day(feed: Feed) -> None:
    with in_tenant(feed.app), pytest.raises(psycopg.errors.InvalidParameterValue):
        trim_events(timedelta(hours=23), has_broker=False)


@pytest.mark.parametrize(
    "arguments",
    [
        "NULL, false, 100",
        "'30 days', NULL, 100",
        "'30 days', false, NULL",
        "'-12 mon 361 days', false, 100",  # It compares as one day, and its moment lies ahead.
        "'-infinity', false, 100",
    ],
)
def test_an_age_that_is_missing_or_lies_ahead_deletes_nothing(
    feed: Feed, fresh_database: Database, arguments: str
) -> None:
    with pytest.raises(psycopg.DataError):
        fresh_database.as_tenant("eur").execute(f"SELECT events_trim_v1({arguments})".encode())
    assert feed.head().trimmed_to == 0
