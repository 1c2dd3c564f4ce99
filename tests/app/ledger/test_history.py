"""The history of wallets for staff and for members: filters, people, and what is left to refund."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask

from tests.app.api.test_problems import problem_of
from tests.factories.api import ID_OF_NOTHING, Api
from tests.factories.people import People, Person


class Desk:
    """A member's wallet with movements by the member, an admin, an operator and an API key."""

    def __init__(self, app: Flask, slug: str) -> None:
        people, self.slug, self.api = People(app), slug, Api(app)
        self.member: Person = people.make(name="Ana Kovač", **{slug: "member"})
        self.admin = people.make(name="Teller", **{slug: "admin"})
        self.operator = people.make(name="Secret Name", is_operator=True)
        self.wallet_id: UUID = people.wallet(self.member, slug)
        self.path = f"wallets/{self.wallet_id}"
        end = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        body = {"name": "the shop", "role": "service", "expiresAt": end}
        made: Any = self.api.post("/api/admin/api-keys", self.admin, slug, json=body).json
        self.key = Person(UUID(made["id"]), "", made["key"])
        self.did: dict[str, Any] = {}
        for name, who, path, sent in (
            ("deposit", self.admin, f"admin/{self.path}/deposits", {"amount": "100.00", "reference": "bank 7%"}),
            ("top-up", self.operator, f"admin/{self.path}/deposits", {"amount": "5.00", "reference": "bank"}),
            ("charge", self.key, f"admin/{self.path}/payments", {"amount": "20.00", "description": "Monthly FEE"}),
            ("payment", self.member, "wallet/payments", {"amount": "10.00", "orderId": uuid4().hex}),
            ("fix", self.admin, f"admin/{self.path}/adjustments", {"amount": "-5.00", "reason": "a late fee"}),
        ):
            answer = self.api.post(f"/api/{path}", who, slug, json=sent)
            assert answer.status_code == 201, answer.text
            self.did[name] = answer.json
        self.names = {each["id"]: name for name, each in self.did.items()}

    def get(self, path: str, person: Person | None = None, **query: Any) -> Any:
        answer = self.api.get(f"/api/{path}", person or self.admin, self.slug, query_string=query)
        assert answer.status_code == 200, answer.text
        return answer.json

    def listed(self, path: str, person: Person | None = None, **query: Any) -> list[str]:
        """The names of this desk's movements in the list, newest first."""
        return [self.names[item["id"]] for item in self.get(path, person, **query)["items"] if item["id"] in self.names]


@pytest.fixture(params=["eur", "km"])
def desk(request: pytest.FixtureRequest, app: Flask) -> Desk:
    return Desk(app, request.param)


FILTERS: list[tuple[dict[str, str], list[str]]] = [
    ({"minAmount": "10.00"}, ["payment", "charge", "deposit"]),
    ({"maxAmount": "5"}, ["fix", "top-up"]),
    ({"minAmount": "10.01", "maxAmount": "20.00"}, ["charge"]),
    ({"reference": "bank"}, ["top-up"]),
    ({"reference": "bank 7%"}, ["deposit"]),
    ({"q": "fee"}, ["fix", "charge"]),
    ({"q": "7%"}, ["deposit"]),
    ({"q": "%"}, ["deposit"]),
    ({"type": "deposit", "q": "BANK"}, ["top-up", "deposit"]),
]


@pytest.mark.parametrize(("query", "names"), FILTERS, ids=str)
def test_each_list_finds_by_amount_reference_and_text(desk: Desk, query: dict[str, str], names: list[str]) -> None:
    assert desk.listed("wallet/transactions", desk.member, **query) == names
    assert desk.listed(f"admin/{desk.path}/transactions", **query) == names
    assert desk.listed("admin/transactions", **query, limit=200) == names


def test_staff_find_by_actor_order_and_time(desk: Desk) -> None:
    for path in (f"admin/{desk.path}/transactions", "admin/transactions"):
        assert desk.listed(path, actorId=desk.admin.user_id) == ["fix", "deposit"]
        assert desk.listed(path, orderId=desk.did["payment"]["orderId"], minAmount="1.00") == ["payment"]
        since = desk.did["charge"]["createdAt"]
        assert desk.listed(path, **{"from": since, "limit": 200}) == ["fix", "payment", "charge"]
        assert desk.listed(path, **{"from": since, "to": desk.did["fix"]["createdAt"], "q": "fee"}) == ["charge"]


def test_an_amount_filter_means_one_currency_and_its_digits(app: Flask) -> None:
    desk = Desk(app, "eur")
    assert desk.listed("admin/transactions", currency="USD") == []
    assert desk.listed("admin/transactions", currency="EUR", minAmount="100.00") == ["deposit"]
    answer = desk.api.get("/api/admin/transactions?minAmount=1.5&currency=JPY", desk.admin, "eur")
    assert problem_of(answer, 422, "validation_failed")["errors"][0]["field"] == "minAmount"


def test_staff_see_whose_movement_it_was_and_who_made_it(desk: Desk) -> None:
    owner = {"id": str(desk.member.user_id), "email": desk.member.email, "name": "Ana Kovač", "removedAt": None}
    admin = {"kind": "user", "id": str(desk.admin.user_id), "name": "Teller", "email": desk.admin.email}
    operator = {"kind": "operator", "id": str(desk.operator.user_id), "name": "operator", "email": None}
    key = {"kind": "api_key", "id": str(desk.key.user_id), "name": "the shop", "email": None}
    expected = {"fix": admin, "payment": None, "charge": key, "top-up": operator, "deposit": admin}
    for path in (f"admin/{desk.path}/transactions", "admin/transactions"):
        text = desk.api.get(f"/api/{path}?limit=200", desk.admin, desk.slug).text
        assert "Secret Name" not in text
        assert desk.operator.email not in text
        shown = {
            desk.names[item["id"]]: item for item in desk.get(path, limit=200)["items"] if item["id"] in desk.names
        }
        assert {name: item["actor"] for name, item in shown.items()} == expected
        assert all(item["owner"] == owner for item in shown.values())


def test_staff_read_one_transaction_with_its_entries(desk: Desk) -> None:
    told = desk.get(f"admin/transactions/{desk.did['charge']['id']}")
    assert (told["owner"]["name"], told["actor"]["name"], told["refundable"]) == ("Ana Kovač", "the shop", "20.00")
    assert [entry["amount"] for entry in told["entries"]] == ["20.00"]
    answer = desk.api.get(f"/api/admin/transactions/{ID_OF_NOTHING}", desk.admin, desk.slug)
    problem_of(answer, 404, "transaction_not_found")


def test_members_see_no_people(desk: Desk) -> None:
    for item in desk.get("wallet/transactions", desk.member)["items"]:
        assert not {"owner", "actor"} & set(item)


def test_a_payment_says_everywhere_what_is_left_to_refund(desk: Desk) -> None:
    assert [desk.did[name]["refundable"] for name in ("deposit", "charge", "payment")] == [None, "20.00", "10.00"]
    body = {"paymentId": desk.did["payment"]["id"], "amount": "4.00"}
    refund: Any = desk.api.post(f"/api/admin/{desk.path}/refunds", desk.admin, desk.slug, json=body).json
    assert refund["refundable"] == "6.00"
    left = {desk.did["payment"]["id"]: "6.00", desk.did["charge"]["id"]: "20.00"}
    for path, person in (
        ("wallet/transactions", desk.member),
        (f"admin/{desk.path}/transactions", desk.admin),
        ("admin/transactions", desk.admin),
    ):
        items = [item for item in desk.get(path, person, limit=200)["items"] if item["walletId"] == str(desk.wallet_id)]
        assert {item["id"]: item["refundable"] for item in items if item["refundable"]} == left
    assert desk.get(f"wallet/transactions/{body['paymentId']}", desk.member)["refundable"] == "6.00"


def test_an_export_has_the_filters_of_the_list(desk: Desk) -> None:
    query = {"actorId": str(desk.admin.user_id), "q": "fee"}
    answer = desk.api.get("/api/admin/transactions.csv", desk.admin, desk.slug, query_string=query)
    assert [line.count(desk.did["fix"]["id"]) for line in answer.text.splitlines()] == [0, 1]
