"""What requests and postings note for the metrics, read from the metrics after they were moved."""

from uuid import uuid4

import pytest
from flask import Flask
from werkzeug.test import Client

from app.metrics.definitions import BROKER_CONFIRMS
from app.metrics.observations import MOST_OBSERVATIONS, OBSERVATIONS, count
from tests.factories.api import Api
from tests.factories.metrics import Growth
from tests.factories.people import People, Person

REQUESTS = "wallet_http_request_seconds_count"
POSTINGS = "wallet_postings_total"
MOVED = "wallet_moved_minor_total"


@pytest.fixture
def member(people: People) -> Person:
    person = people.make(eur="member")
    people.wallet(person, "eur", balance_minor=1000)
    return person


def test_a_request_is_counted_under_its_route_and_never_its_path(app: Flask, member: Person) -> None:
    growth = Growth(
        (REQUESTS, {"route": "/api/wallet/transactions/<uuid:transaction_id>", "method": "GET", "status": "4xx"}),
        (REQUESTS, {"route": "other", "method": "other", "status": "4xx"}),
    )
    client = Client(app)
    headers = {"Authorization": f"Bearer {member.token}"}
    for _ in range(2):
        assert client.get(f"/api/eur/wallet/transactions/{uuid4()}", headers=headers).status_code == 404
        assert client.get(f"/{uuid4()}").status_code == 404
        assert client.open("/api/wallet", method=f"INVENTED{uuid4().hex[:5]}").status_code == 405
    assert growth() == [2, 4]


def test_a_posting_is_counted_by_its_outcome_and_its_amount_once(api: Api, member: Person) -> None:
    growth = Growth(
        (POSTINGS, {"type": "payment", "outcome": "posted"}),
        (POSTINGS, {"type": "payment", "outcome": "replayed"}),
        (POSTINGS, {"type": "payment", "outcome": "insufficient_funds"}),
        (MOVED, {"type": "payment", "currency": "EUR"}),
        ("wallet_posting_seconds_count", {"type": "payment"}),
        ("wallet_problems_total", {"code": "insufficient_funds", "status": "409"}),
    )
    key = uuid4().hex
    for amount, used, status in (("3.50", key, 201), ("3.50", key, 201), ("10.00", uuid4().hex, 409)):
        answer = api.post("/api/wallet/payments", member, "eur", json={"amount": amount}, key=used)
        assert answer.status_code == status
    assert growth() == [1, 1, 1, 350, 2, 1]


def test_a_dry_run_is_no_posting(api: Api, member: Person) -> None:
    growth = Growth((POSTINGS, {"type": "payment", "outcome": "posted"}))
    answer = api.post("/api/wallet/payments?dryRun=true", member, "eur", json={"amount": "1.00"})
    assert answer.status_code == 200
    assert growth() == [0]


def test_each_item_of_a_bulk_is_counted(api: Api, people: People) -> None:
    admin, member = people.make(eur="admin"), people.make(eur="member")
    wallet_id = str(people.wallet(member, "eur", balance_minor=100, currency="USD"))
    growth = Growth(
        (POSTINGS, {"type": "deposit", "outcome": "posted"}),
        (POSTINGS, {"type": "payment", "outcome": "insufficient_funds"}),
        # Other tests move amounts in EUR beside which these are lost in a float.
        (MOVED, {"type": "deposit", "currency": "USD"}),
    )
    kinds = [("deposit", "1.00"), ("payment", "99.00"), ("deposit", "2.00")]
    items = [{"walletId": wallet_id, "type": kind, "amount": amount} for kind, amount in kinds]
    answer = api.post("/api/admin/transactions/bulk", admin, "eur", json={"items": items, "atomic": False})
    assert answer.status_code == 200, answer.text
    assert growth() == [2, 1, 300]


def test_a_capture_is_a_payment(api: Api, member: Person) -> None:
    growth = Growth((MOVED, {"type": "payment", "currency": "EUR"}))
    hold = api.post("/api/wallet/holds", member, "eur", json={"amount": "4.00"}).json["id"]
    assert growth() == [0]
    assert api.post(f"/api/wallet/holds/{hold}/capture", member, "eur", json={"amount": "1.00"}).status_code == 201
    assert growth() == [100]


def test_notes_that_nothing_moves_take_no_more_memory() -> None:
    growth = Growth(("wallet_broker_confirms_total", {}))
    for _ in range(MOST_OBSERVATIONS + 5):
        count(BROKER_CONFIRMS)
    assert len(OBSERVATIONS.noted) == MOST_OBSERVATIONS
    assert growth() == [MOST_OBSERVATIONS]
