"""The description of the API has every event, as it is sent."""

from typing import Any

import jsonschema_rs
import orjson
import pytest
from flask import Flask

from app.api.openapi import document_of
from app.events.feed import FeedEvent, event_json
from app.events.models import EVENT_TYPES
from tests.factories.api import Api
from tests.factories.feed import Feed
from tests.factories.people import People

Json = dict[str, Any]


def test_every_type_is_described_under_a_name_of_its_own(app: Flask) -> None:
    described = document_of(app)["webhooks"]
    assert set(described) == set(EVENT_TYPES)
    names = [item["post"]["operationId"] for item in described.values()]
    assert (len(set(names)), names[1]) == (len(EVENT_TYPES), "onWalletPaymentPostedV1")


@pytest.fixture
def events(app: Flask, api: Api, people: People) -> list[FeedEvent]:
    """Events of each kind of object."""
    member, admin = people.make(eur="member"), people.make(eur="admin")
    wallet_id = people.wallet(member, "eur", balance_minor=1000, credit_limit_minor=500)
    hold = api.post("/api/wallet/holds", member, "eur", json={"amount": "1.00"}).json
    api.post(f"/api/wallet/holds/{hold['id']}/capture", member, "eur", json={"amount": "0.50"})
    payment = api.post("/api/wallet/payments", member, "eur", json={"amount": "1.00"}).json
    path = f"/api/admin/wallets/{wallet_id}"
    api.post(f"{path}/refunds", admin, "eur", json={"paymentId": payment["id"], "amount": "0.25"})
    api.post(f"{path}/adjustments", admin, "eur", json={"amount": "-0.10", "reason": "counted"})
    api.patch(path, admin, "eur", json={"status": "frozen"})
    return Feed(app, "eur").of(wallet_id)


@pytest.mark.parametrize("payload", ["full", "thin"])
def test_what_is_sent_is_as_described(app: Flask, events: list[FeedEvent], payload: Any) -> None:
    document = document_of(app)
    seen = set()
    for event in events:
        content = document["webhooks"][event.type]["post"]["requestBody"]["content"]["application/cloudevents+json"]
        schema = closed({**content["schema"], "components": document["components"]})
        validator = jsonschema_rs.validator_for(schema, validate_formats=True)
        faults = [fault.message for fault in validator.iter_errors(orjson.loads(event_json(event, payload)))]
        assert faults == [], event.type
        seen.add(event.type)
    assert len(seen) >= 8, seen


def closed(node: Any) -> Any:
    """The schema, which takes no member that it does not describe."""
    if isinstance(node, list):
        return [closed(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    extra = {"additionalProperties": False} if node.get("type") == "object" else {}
    return {name: closed(inner) for name, inner in node.items()} | extra
