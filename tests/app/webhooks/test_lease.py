"""A lease ends whatever the clock does, and notes nothing that the feed has not."""

import json
from typing import Any
from uuid import UUID

import psycopg
import pytest

from app.webhooks.delivery import deliver_due
from app.webhooks.lease import Claimed, claim
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections
from tests.factories.feed import in_tenant
from tests.factories.hooked import Hooked
from tests.factories.webhooks import Consumer, Reply


def run(hooked: Hooked, statement: str, *parameters: Any) -> Any:
    """As the tenant's own login."""
    with in_tenant(hooked.app, hooked.slug):
        return connections().engine(current_tenant()).one_statement(statement, parameters)


def claimed(hooked: Hooked) -> Claimed:
    with in_tenant(hooked.app, hooked.slug):
        found = claim()
        assert found
        return found


def settle(hooked: Hooked, endpoint: Claimed, version: int = 2, seconds: int = 0, **told: Any) -> Any:
    lists = {name: [] for name in ("lanes", "replays", "parked", "unparked", "attempts")}
    done = lists | {"feed_id": str(endpoint.feed_id), "delivered": 0, "failures": 0, "is_failing": False} | told
    statement = f"SELECT webhook_settle_v{version}(%s, %s, %s, %s::jsonb)"
    return run(hooked, statement, endpoint.id, endpoint.lease_by, seconds, json.dumps(done))


@pytest.mark.parametrize("version", [1, 2])
def test_a_delivery_passes_no_event_that_is_not_there(hooked: Hooked, consumer: Consumer, version: int) -> None:
    """It would be lost when it comes."""
    webhook_id, wallet_id = hooked.webhook(consumer.url()), hooked.wallet()
    endpoint, head = claimed(hooked), hooked.feed.head().position
    lane = {"key": str(wallet_id), "is_ordered": True, "position": head + 1, "attempts": 0, "delay_seconds": 0}
    parked = {"event_id": str(wallet_id), "type": "x", "position": head + 1}
    for told in ({"position": head + 1}, {"lanes": [lane]}, {"parked": [parked]}):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            settle(hooked, endpoint, version, **told)
    assert settle(hooked, endpoint, version, seconds=60, position=head) == [(True,)]
    assert settle(hooked, endpoint, version, position=head - 1) == [(True,)]
    assert hooked.get(webhook_id).position == head, "nor does it go back"


@pytest.mark.parametrize("version", [1, 2])
def test_a_lease_has_five_minutes_at_most(hooked: Hooked, consumer: Consumer, version: int) -> None:
    hooked.webhook(consumer.url())
    hooked.wallet()
    for seconds in (301, 0, -1, None):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            run(hooked, f"SELECT webhook_claim_v{version}(gen_random_uuid(), %s)", seconds)
    endpoint = claimed(hooked)
    for seconds in (301, -1):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            settle(hooked, endpoint, version, seconds=seconds)


def test_a_replay_is_of_positions_that_the_feed_has(hooked: Hooked, consumer: Consumer) -> None:
    webhook_id, head = hooked.webhook(consumer.url()), hooked.feed.head().position
    for position, until in ((-1, 0), (2, 1), (0, head + 1), (None, 0), (0, None)):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            run(hooked, "SELECT webhook_replay_v1(%s, %s, %s, '{}')", webhook_id, position, until)


@pytest.mark.parametrize("ahead", ["lease_until", "next_at"])
def test_an_endpoint_goes_on_after_the_clock_was_set_back(hooked: Hooked, consumer: Consumer, ahead: str) -> None:
    webhook_id, wallet_id = hooked.webhook(consumer.url()), hooked.wallet()
    hooked.run(f"UPDATE webhook_endpoints SET {ahead} = clock_timestamp() + interval '1 year'")
    hooked.pay(wallet_id)
    hooked.deliver()
    assert hooked.get(webhook_id).position == hooked.feed.head().position


@pytest.mark.parametrize("ahead", ["webhook_lanes", "webhook_replays"])
def test_what_waits_goes_on_after_the_clock_was_set_back(hooked: Hooked, consumer: Consumer, ahead: str) -> None:
    webhook_id, wallet_id = hooked.webhook(consumer.url()), hooked.wallet()
    hooked.deliver()
    consumer.take()
    consumer.answer = lambda _: Reply(500)
    paid = hooked.pay(wallet_id)
    if ahead == "webhook_replays":
        head = hooked.feed.head().position
        hooked.run("UPDATE webhook_endpoints SET position = %s", (head,))
        hooked.run("SELECT webhook_replay_v2(%s, %s, %s, '{}', NULL, NULL)", (webhook_id, head - 1, head))
    hooked.deliver()
    consumer.take()
    consumer.answer = lambda _: Reply()
    hooked.run(f"UPDATE {ahead} SET next_at = clock_timestamp() + interval '1 year'")
    hooked.deliver()
    assert [UUID(got.id) for got in consumer.take()] == paid


def test_a_lease_and_a_delay_of_today_are_waited_for(hooked: Hooked, consumer: Consumer) -> None:
    hooked.webhook(consumer.url())
    hooked.wallet()
    claimed(hooked)
    with in_tenant(hooked.app, hooked.slug):
        assert deliver_due() is None
        hooked.run(
            "UPDATE webhook_endpoints SET lease_until = clock_timestamp(), next_at = now() + interval '30 hours'"
        )
        assert deliver_due() is None
