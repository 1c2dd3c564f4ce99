"""The events are CloudEvents 1.0; the package of the specification's authors is the judge."""

import json
from uuid import UUID

import pytest
from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from flask import Flask

from app.events.feed import event_json
from app.events.models import EVENT_TYPES
from app.ledger.service import post
from deploy.standin.events import read_event
from tests.factories.feed import Feed, in_tenant, movement
from tests.factories.people import Person


def read(body: bytes) -> CloudEvent:
    event = JSONFormat().read(CloudEvent, body)
    assert isinstance(event, CloudEvent)
    return event


def test_an_event_is_a_cloudevent_and_names_its_tenant_by_id(app: Flask, feed: Feed, wallet_id: UUID) -> None:
    with in_tenant(app) as tenant:
        posted, _ = post(wallet_id, movement("payment", 320, order_id="17", description="Two coffees"))
    event = feed.of(wallet_id)[-1]
    body = read(event_json(event, "full"))
    assert (body.get_id(), body.get_type()) == (str(posted.id), "wallet.payment.posted.v1")
    assert body.get_source() == f"/tenants/{tenant.id}"
    assert body.get_subject() == f"wallets/{wallet_id}"
    assert body.get_time() == posted.created_at
    assert body.get_extension("sequence") == f"{event.position:020}"
    assert body.get_extension("sequencetype") is None
    assert body.get_extension("partitionkey") == str(wallet_id)
    assert body.get_extension("feedid") == str(feed.head().feed_id)
    data = body.get_data()
    assert isinstance(data, dict)
    assert data["amount"] == "-3.20"
    assert data["balanceAfter"] == "6.80"
    assert (data["currency"], data["orderId"], data["description"]) == ("EUR", "17", "Two coffees")


def test_a_thin_event_has_ids_and_the_proof_and_no_free_text(
    app: Flask, feed: Feed, wallet_id: UUID, person: Person
) -> None:
    told = {"admin_id": person.user_id, "reason": "a secret"}
    with in_tenant(app):
        posted, _ = post(wallet_id, movement("adjustment", -1, **told))
    event = feed.of(wallet_id)[-1]
    body = read(event_json(event, "thin"))
    assert body.get_data() == {
        **{"walletId": str(wallet_id), "transactionId": str(posted.id), "seq": 2, "adminId": str(person.user_id)},
        **{"orderId": None, "paymentId": None, "holdId": None},
        **{name: event.body["data"][name] for name in ("hash", "previousHash")},
    }
    assert body.get_extension("sequence") == f"{event.position:020}"


def test_every_type_of_the_feed_is_known_and_readable(feed: Feed, wallet_id: UUID) -> None:
    """Of all tests in this process, whatever they made; also by the strict reader of the stand-in."""
    feed.of(wallet_id)
    for event in feed.read(limit=100_000):
        assert event.type in EVENT_TYPES
        for payload in ("full", "thin"):
            body = event_json(event, payload)
            assert read(body).get_id() == read_event(body)["id"]


def test_the_judge_refuses_what_is_no_cloudevent(feed: Feed, wallet_id: UUID) -> None:
    body = json.loads(event_json(feed.of(wallet_id)[-1], "full"))
    for broken in ({**body, "feedId": "a"}, {**body, "source": None}):
        with pytest.raises(CloudEventValidationError):
            read(json.dumps(broken).encode())
