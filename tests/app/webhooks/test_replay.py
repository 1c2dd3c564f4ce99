"""A replay goes from the ledger, for what the feed has no more, to the feed; and never round about."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from flask import Flask

from app.auth.actors import SYSTEM
from app.db import db
from app.webhooks import service
from app.webhooks.errors import EventNotFound
from app.webhooks.sender import Sender
from tenant_schemas.testing.plugin import Database
from tests.factories.feed import in_tenant
from tests.factories.hooked import Hooked, hooked_tenant
from tests.factories.webhooks import Consumer, Reply

LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


@pytest.fixture
def hooked(fresh_app: Flask, fresh_database: Database, hooks_sender: Sender) -> Iterator[Hooked]:
    """Of a tenant whose feed nobody else reads."""
    with hooked_tenant(fresh_app, fresh_database, hooks_sender) as hooked:
        yield hooked


def replay(hooked: Hooked, webhook_id: UUID, types: list[str] | None = None, start: datetime = LONG_AGO) -> None:
    with in_tenant(hooked.app):
        end = datetime.now(UTC) + timedelta(minutes=1)
        service.replay_events(webhook_id, start=start, end=end, types=types or [], actor=SYSTEM)
        db.session.commit()


def forget_all_but(hooked: Hooked, kept: int) -> None:
    """Trim the feed to its newest events."""
    hooked.run("UPDATE events_head SET trimmed_to = position - %s", (kept,))
    hooked.run("DELETE FROM events WHERE position <= (SELECT trimmed_to FROM events_head)")


def paid_by(consumer: Consumer) -> list[tuple[str, bool]]:
    """The payments that it got: their ids, and whether they were made again from the ledger."""
    got = [each for each in consumer.take() if each.event["type"] == "wallet.payment.posted.v1"]
    return [(each.id, "replay" in each.event) for each in got]


def test_what_the_feed_has_no_more_comes_from_the_ledger_and_then_the_rest_from_the_feed(
    hooked: Hooked, consumer: Consumer
) -> None:
    wallet_id = hooked.wallet()
    paid = [str(each) for each in hooked.pay(wallet_id, 25)]
    webhook_id = hooked.webhook(consumer.url())
    forget_all_but(hooked, 3)
    replay(hooked, webhook_id)
    consumer.answer = lambda got: Reply(500 if got.id == paid[20] else 200)
    hooked.deliver()
    assert paid_by(consumer) == [(each, True) for each in paid[:21]], "it waits for the one that failed"
    assert hooked.rows("SELECT webhooks_passed_v1() = trimmed_to FROM events_head") == [(True,)], "the feed waits too"
    new = hooked.pay(wallet_id)
    consumer.answer = lambda _: Reply()
    hooked.deliver()
    assert paid_by(consumer) == [(str(new[0]), False)]
    hooked.pass_time(timedelta(minutes=1))
    hooked.deliver()
    assert paid_by(consumer) == [(each, True) for each in paid[20:22]] + [(each, False) for each in paid[22:]]
    (row,) = hooked.rows(
        "SELECT delivered, position = until_position, finished_at IS NULL, ledger_until FROM webhook_replays"
    )
    assert row == (26, True, False, None)


def test_a_period_before_the_feed_has_no_part_in_it(hooked: Hooked, consumer: Consumer) -> None:
    wallet_id = hooked.wallet()
    paid = [str(each) for each in hooked.pay(wallet_id, 2)]
    webhook_id = hooked.webhook(consumer.url())
    forget_all_but(hooked, 0)
    with in_tenant(hooked.app), pytest.raises(EventNotFound):
        service.replay_events(webhook_id, start=LONG_AGO, end=LONG_AGO + timedelta(1), types=[], actor=SYSTEM)
    replay(hooked, webhook_id, ["wallet.payment.posted.v1"])
    hooked.deliver()
    assert [(got.id, got.event["replay"]) for got in consumer.take()] == [(each, True) for each in paid]
    assert hooked.rows("SELECT finished_at IS NULL FROM webhook_replays") == [(False,)]


def test_an_event_of_the_ledger_that_is_given_up_holds_nothing(hooked: Hooked, consumer: Consumer) -> None:
    """It is in the log. A place among the parked events would keep the feed for thirty days."""
    paid = [str(each) for each in hooked.pay(hooked.wallet(), 2)]
    webhook_id = hooked.webhook(consumer.url())
    forget_all_but(hooked, 0)
    replay(hooked, webhook_id, ["wallet.payment.posted.v1"])
    hooked.run("UPDATE webhook_replays SET attempts = 9")
    consumer.answer = lambda got: Reply(500 if got.id == paid[0] else 200)
    hooked.deliver()
    assert hooked.rows("SELECT event_id::text, outcome FROM webhook_attempts ORDER BY at") == [
        (paid[0], "parked"),
        (paid[1], "delivered"),
    ]
    assert hooked.rows("SELECT count(*) FROM webhook_parked") == [(0,)]


def test_a_replay_within_the_feed_asks_the_ledger_for_nothing(hooked: Hooked, consumer: Consumer) -> None:
    hooked.pay(hooked.wallet())
    webhook_id = hooked.webhook(consumer.url())
    (start,) = hooked.rows("SELECT started_at FROM events_head")[0]
    replay(hooked, webhook_id, start=start)
    assert hooked.rows("SELECT ledger_until FROM webhook_replays") == [(None,)]
