"""A member has one wallet for each currency that the tenant allows, and no amount is added or converted across
currencies.

The tenant eur has EUR and allows USD, JPY (no minor unit) and KWD (three digits); km has BAM only.
"""

from typing import Any

import psycopg
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import faults_of, problem_of
from tests.factories.api import Api
from tests.factories.catalogue import Catalogue
from tests.factories.people import People, Person

AMOUNTS = {"EUR": ("10.00", "2.50", "7.50"), "JPY": ("1000", "250", "750"), "KWD": ("1.000", "0.001", "0.999")}
OVER_CURRENCIES = pytest.mark.parametrize("currency", AMOUNTS)


class Purse:
    """A member who is an admin too, with a wallet in each currency on demand."""

    def __init__(self, app: Flask) -> None:
        self.api = Api(app)
        self.person: Person = People(app).make(eur="admin", km="admin")

    def get(self, path: str, currency: str | None = None, status: int = 200, **more: str) -> Any:
        query = {"currency": currency, **more} if currency else more
        answer = self.api.get(f"/api/{path}", self.person, "eur", query_string=query)
        assert answer.status_code == status, answer.text
        return answer.json

    def send(self, path: str, currency: str | None = None, **body: Any) -> TestResponse:
        query = {"currency": currency} if currency else {}
        return self.api.post(f"/api/{path}", self.person, "eur", query_string=query, json=body)

    def post(self, path: str, currency: str | None = None, status: int = 201, **body: Any) -> Any:
        answer = self.send(path, currency, **body)
        assert answer.status_code == status, answer.text
        return answer.json

    def fill(self, currency: str, amount: str) -> str:
        """Deposit into the wallet of the currency; returns its id."""
        wallet_id = str(self.get("wallet", currency)["id"])
        self.post(f"admin/wallets/{wallet_id}/deposits", amount=amount)
        return wallet_id


@pytest.fixture
def purse(app: Flask) -> Purse:
    return Purse(app)


def test_each_currency_has_a_wallet_of_its_own_and_the_main_one_is_meant_without_a_word(purse: Purse) -> None:
    wallets = {currency: purse.get("wallet", currency) for currency in ("EUR", "USD", "JPY", "KWD")}
    assert {currency: wallet["currency"] for currency, wallet in wallets.items()} == {name: name for name in wallets}
    assert len({wallet["id"] for wallet in wallets.values()}) == 4
    assert purse.get("wallet")["id"] == wallets["EUR"]["id"]
    assert [wallets[name]["balance"] for name in ("EUR", "JPY", "KWD")] == ["0.00", "0", "0.000"]


@OVER_CURRENCIES
def test_money_keeps_its_currencys_digits_on_every_way(purse: Purse, currency: str) -> None:
    deposit, paid, left = AMOUNTS[currency]
    wallet_id = purse.fill(currency, deposit)
    payment = purse.post("wallet/payments", currency, amount=paid)
    assert (payment["amount"], payment["balanceAfter"], payment["currency"]) == (f"-{paid}", left, currency)
    assert purse.get("wallet", currency)["available"] == left
    assert purse.get("wallet/balance", currency)["balance"] == left
    listed = purse.get("wallet/transactions", currency)["items"]
    assert [item["amount"] for item in listed] == [f"-{paid}", deposit]
    shown = purse.get(f"wallet/transactions/{payment['id']}")
    assert [entry["amount"] for entry in shown["entries"]] == [paid]

    hold = purse.post("wallet/holds", currency, amount=paid)
    assert (hold["amount"], hold["capturable"], hold["currency"]) == (paid, paid, currency)
    assert purse.get("wallet/holds", currency)["items"][0]["id"] == hold["id"]
    captured = purse.post(f"wallet/holds/{hold['id']}/capture", amount=paid)
    assert (captured["amount"], captured["holdId"]) == (f"-{paid}", hold["id"])
    refund = purse.post(f"admin/wallets/{wallet_id}/refunds", paymentId=captured["id"], amount=paid)
    assert (refund["balanceAfter"], float(refund["refundable"])) == (left, 0)


@pytest.mark.parametrize(("currency", "amount"), [("JPY", "1.5"), ("JPY", "0.1"), ("KWD", "0.0001"), ("USD", "0.001")])
def test_more_digits_than_the_wallets_currency_has_are_refused(purse: Purse, currency: str, amount: str) -> None:
    wallet_id = purse.fill(currency, "1000")
    for path, chosen in (
        ("wallet/payments", currency),
        ("wallet/holds", currency),
        (f"admin/wallets/{wallet_id}/deposits", None),
        (f"admin/wallets/{wallet_id}/payments", None),
    ):
        assert faults_of(purse.send(path, chosen, amount=amount)) == [("amount", "too_many_fraction_digits")], path
    hold = purse.post("wallet/holds", currency, amount="1")
    captured = purse.send(f"wallet/holds/{hold['id']}/capture", amount=amount)
    assert faults_of(captured) == [("amount", "too_many_fraction_digits")]


def test_one_currencys_money_pays_nothing_in_another(purse: Purse) -> None:
    purse.fill("JPY", "1000000")
    purse.get("wallet", "EUR")
    refusal = problem_of(purse.send("wallet/payments", "EUR", amount="0.01"), 409, "insufficient_funds")
    assert (refusal["currency"], refusal["available"]) == ("EUR", "0.00")
    assert purse.get("wallet", "JPY")["balance"] == "1000000"


def test_one_key_may_be_used_once_in_each_wallet(purse: Purse) -> None:
    """(wallet, key) is unique, so the same request in another currency is another request."""
    purse.fill("EUR", "10")
    purse.fill("KWD", "10")
    answers = [
        purse.api.post(
            "/api/wallet/payments",
            purse.person,
            "eur",
            key="one",
            query_string={"currency": currency},
            json={"amount": "1"},
        )
        for currency in ("EUR", "KWD", "EUR")
    ]
    assert [answer.json["amount"] for answer in answers] == ["-1.00", "-1.000", "-1.00"]
    assert [answer.headers.get("Idempotent-Replayed") for answer in answers] == [None, None, "true"]


@pytest.mark.parametrize("path", ["wallet", "wallet/transactions", "wallet/balance", "wallet/holds", "products"])
def test_a_currency_the_tenant_has_not_is_refused_by_name(purse: Purse, path: str) -> None:
    assert faults_of(purse.api.get(f"/api/{path}?currency=USD", purse.person, "km")) == [
        ("currency", "currency_not_allowed")
    ]
    for wrong in ("eur", "EURO", "XXX", "XAU", "", "E R"):
        answer = purse.api.get(f"/api/{path}", purse.person, "eur", query_string={"currency": wrong})
        assert faults_of(answer) == [("currency", "not_a_currency")], wrong


def test_an_admin_opens_a_members_wallet_in_another_currency(app: Flask, purse: Purse) -> None:
    member = People(app).make(eur="member")
    opened, again, refused = (
        purse.api.post(
            "/api/admin/wallets", purse.person, "eur", json={"userId": str(member.user_id), "currency": currency}
        )
        for currency in ("KWD", "KWD", "BAM")
    )
    assert (opened.status_code, again.status_code) == (201, 200)
    assert (opened.json["currency"], opened.json["userId"]) == ("KWD", str(member.user_id))
    assert again.json == opened.json
    assert faults_of(refused) == [("currency", "currency_not_allowed")]


def test_an_order_is_priced_and_paid_in_the_currency_that_is_asked_for(purse: Purse, database: Database) -> None:
    sku, product_id = Catalogue(database).product(EUR="2.00", JPY="300")
    purse.fill("JPY", "1000")
    order = purse.post("orders", "JPY", items=[{"productId": str(product_id), "quantity": 2}])
    assert (order["total"], order["currency"], order["balanceAfter"]) == ("600", "JPY", "400")
    assert purse.get("products", "JPY", q=sku)["items"][0]["price"] == "300"
    without = purse.send("orders", "KWD", items=[{"productId": str(product_id), "quantity": 1}])
    assert without.status_code == 404, "no wallet in KWD yet"
    purse.fill("KWD", "1")
    without = purse.send("orders", "KWD", items=[{"productId": str(product_id), "quantity": 1}])
    assert problem_of(without, 409, "product_without_price")["currency"] == "KWD"


def test_postgresql_itself_opens_no_wallet_in_a_currency_the_tenant_has_not(
    app: Flask, purse: Purse, database: Database
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        database.as_tenant("km").execute(
            "SELECT wallet_open_v2(%s, 'USD', %s, 'r')", (purse.person.user_id, purse.person.user_id)
        )
