"""How events are numbered, who may read them, and which positions are refused."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from flask import Flask

from app.events import feed as feed_module
from app.events.errors import FeedChanged, FeedTrimmed
from app.events.feed import read_page, stamp_events
from app.ledger.service import post
from tenant_schemas.testing.plugin import Database
from tests.factories.application import running
from tests.factories.feed import POST, Feed, in_tenant, movement
from tests.factories.people import People

Connection = psycopg.Connection[Any]


@pytest.mark.both_servers
def test_stampers_and_payers_at_once_leave_no_gap_and_no_event_out(fresh_database: Database) -> None:
    with running(fresh_database) as app:
        people, feed = People(app), Feed(app, "eur")
        wallets = [people.wallet(people.make(eur="member"), "eur", balance_minor=10_000) for _ in range(4)]
        is_paid = Event()

        def stamp(batch: int) -> int:
            count = 0
            with in_tenant(app):
                while not is_paid.is_set():
                    count += stamp_events(batch)
            return count

        def pay(wallet_id: UUID) -> None:
            with in_tenant(app):
                for _ in range(40):
                    post(wallet_id, movement("payment", 1))

        with ThreadPoolExecutor(8) as threads:
            stampers = [threads.submit(stamp, batch) for batch in (1, 3, 50)]
            list(threads.map(pay, [*wallets, wallets[0]]))
            is_paid.set()
        stamped = sum(each.result() for each in stampers) + feed.stamp()
        assert stamped == feed.head().position == 4 * 2 + 5 * 40
        feed.assert_gapless()
        for wallet_id in wallets:
            data = [event.body["data"] for event in feed.of(wallet_id)[1:]]
            assert [each["seq"] for each in data] == list(range(1, len(data) + 1))


class TwoSessions:
    """Two db transactions of the owner, to be ended in an order that a test chooses."""

    def __init__(self, database: Database) -> None:
        self.first, self.second = database.as_superuser(), database.as_superuser()
        for each in (self.first, self.second):
            each.execute("SET search_path TO eur_schema")

    def pay(self, connection: Connection, wallet_id: UUID) -> None:
        connection.execute(POST, (wallet_id, uuid4().hex))

    def numbers(self, query: str, wallet_ids: list[UUID]) -> list[Any]:
        return self.first.execute(query.encode(), (wallet_ids,)).fetchall()


@pytest.fixture
def two(database: Database) -> TwoSessions:
    return TwoSessions(database)


def test_what_commits_late_comes_later_and_is_not_lost(
    feed: Feed, two: TwoSessions, people: People, wallet_id: UUID
) -> None:
    """The broken design reads what follows the greatest `n` that it has seen: it never sees the first payment."""
    other = people.wallet(people.make(eur="member"), "eur", balance_minor=10)
    feed.stamp()
    by_n = "SELECT coalesce(max(n), 0) FROM events WHERE wallet_id = ANY (%s)"
    with two.first.transaction():
        two.pay(two.first, wallet_id)
        two.pay(two.second, other)
        feed.stamp()
        seen = two.second.execute(by_n, ([wallet_id, other],)).fetchone() or (0,)
    feed.stamp()
    later = two.numbers(
        "SELECT n FROM events WHERE position IS NOT NULL AND wallet_id = ANY (%s) ORDER BY n", [wallet_id]
    )
    assert later[-1] < seen, "the cursor over the sequence has passed the payment"
    late, early = feed.of(wallet_id)[-1], feed.of(other)[-1]
    assert late.position > early.position
    feed.assert_gapless()


def test_a_wallets_order_is_that_of_its_lock_and_not_of_transaction_ids(
    feed: Feed, two: TwoSessions, people: People, wallet_id: UUID
) -> None:
    """The broken design orders by transaction id: an order may have one before it gets the lock, and is first."""
    with two.first.transaction():
        two.first.execute("SELECT pg_current_xact_id()")
        two.pay(two.second, wallet_id)
        two.pay(two.first, wallet_id)
    by_xid = """
        SELECT t.seq FROM events e JOIN wallet_transactions t ON t.id = e.id WHERE e.wallet_id = ANY (%s)
        ORDER BY t.xmin::text::bigint"""
    feed_order = [event.body["data"]["seq"] for event in feed.of(wallet_id)[1:]]
    assert feed_order == [1, 2, 3]
    assert [seq for (seq,) in two.numbers(by_xid, [wallet_id])] == [1, 3, 2], "the broken design"


def test_a_stamper_that_waits_numbers_what_was_committed_meanwhile(
    feed: Feed, two: TwoSessions, wallet_id: UUID
) -> None:
    feed.stamp()
    two.pay(two.second, wallet_id)
    with ThreadPoolExecutor(1) as threads:
        with two.first.transaction():
            two.first.execute("SELECT FROM events_head FOR UPDATE")
            waiting = threads.submit(feed.stamp)
            until_waiting(two.second, "events_stamp")
            two.pay(two.first, wallet_id)
        waiting.result()
    assert [event.body["data"]["seq"] for event in feed.of(wallet_id)[1:]] == [1, 2, 3]
    feed.assert_gapless()


def until_waiting(connection: Connection, words: str) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
    for _ in range(500):
        if (connection.execute(query, (f"%{words}%",)).fetchone() or (0,))[0]:
            return
        connection.execute("SELECT pg_sleep(0.01)")
    raise TimeoutError(words)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO events (id, type) VALUES (gen_random_uuid(), 'wallet.payment.posted.v1')",
        "UPDATE events SET position = NULL",
        "DELETE FROM events",
        "UPDATE events_head SET position = 0",
        "SELECT nextval('events_n')",
        "SELECT setval('events_n', 1)",
        "SELECT events_of_movement_v1()",
    ],
)
def test_a_tenants_login_writes_no_event(database: Database, statement: str) -> None:
    login = database.as_tenant("eur")
    with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported)):
        login.execute(statement.encode())


def test_the_other_tenant_sees_nothing_of_it(app: Flask, feed: Feed, wallet_id: UUID, database: Database) -> None:
    own = {event.id for event in feed.of(wallet_id)}
    other = Feed(app, "km")
    assert other.of(wallet_id) == []
    assert other.head().feed_id != feed.head().feed_id
    assert not own & {event.id for event in other.read(limit=100_000)}
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.as_tenant("km").execute("SELECT FROM eur_schema.events")


def test_a_page_goes_on_after_what_its_types_left_out(
    app: Flask, feed: Feed, wallet_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MAX_SCANNED", 2)
    with in_tenant(app):
        for _ in range(5):
            post(wallet_id, movement("payment", 1))
        post(wallet_id, movement("deposit", 1))
    first = feed.of(wallet_id)[0].position
    with in_tenant(app):
        found, after, pages = [], first, 0
        while after < feed.head().position:
            page = read_page(after, 10, types=["wallet.deposit.posted.v1"], wallet_ids=[wallet_id])
            found, after, pages = [*found, *page.events], page.position, pages + 1
        assert [event.body["data"]["amount"] for event in found] == ["10.00", "0.01"]
        assert pages == -(-(feed.head().position - first) // 2)
        page = read_page(first, 3, wallet_ids=[wallet_id])
        assert page.position == page.events[-1].position == feed.of(wallet_id)[3].position


def test_a_position_that_the_feed_does_not_have_is_refused(app: Flask, fresh_app: Flask) -> None:
    people, feed = People(fresh_app), Feed(fresh_app, "eur")
    people.wallet(people.make(eur="member"), "eur", balance_minor=1)
    feed.stamp()
    head = feed.head()
    with in_tenant(fresh_app):
        assert read_page(0, 10, feed_id=head.feed_id).position == head.position == 2
        for after, feed_id in ((0, uuid4()), (3, None)):
            with pytest.raises(FeedChanged) as changed:
                read_page(after, 10, feed_id=feed_id)
            assert changed.value.members == {"feedId": str(head.feed_id)}


def test_a_position_before_the_trimmed_events_is_refused(fresh_database: Database) -> None:
    with running(fresh_database) as app:
        people, feed = People(app), Feed(app, "eur")
        people.wallet(people.make(eur="member"), "eur", balance_minor=1)
        feed.stamp()
        superuser = fresh_database.as_superuser()
        superuser.execute("DELETE FROM eur_schema.events WHERE position = 1")
        superuser.execute("UPDATE eur_schema.events_head SET trimmed_to = 1")
        assert [event.position for event in feed.read(after=1)] == [2]
        with pytest.raises(FeedTrimmed) as trimmed:
            feed.read(after=0)
        assert trimmed.value.members == {"trimmedTo": 1}
