"""The balance at a moment, and the trial balance, over HTTP."""

from collections import defaultdict
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask

from app.ledger.models import Movement
from app.ledger.service import post
from tenant_schemas.flask import tenant_context
from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.people import People, Person

MICROSECOND = timedelta(microseconds=1)


class Reader:
    """One member's wallet, an admin, and the requests that both may make about it."""

    def __init__(self, app: Flask, slug: str, currency: str | None = None) -> None:
        people = People(app)
        self.app, self.slug, self.api = app, slug, Api(app)
        self.member: Person = people.make(**{slug: "member"})
        self.admin: Person = people.make(**{slug: "admin"})
        self.wallet_id: UUID = people.wallet(self.member, slug, credit_limit_minor=100_000, currency=currency)

    def post(self, type_: str, amount_minor: int) -> datetime:
        movement = Movement(type=type_, amount_minor=amount_minor, idempotency_key=uuid4().hex)
        with self.app.app_context(), tenant_context(self.slug):
            return post(self.wallet_id, movement)[0].created_at

    def balance(self, at: datetime | str | None = None, *, by_admin: bool = False, **more: str) -> Any:
        path, person = "/api/wallet/balance", self.member
        if by_admin:
            path, person = f"/api/admin/wallets/{self.wallet_id}/balance", self.admin
        text = at.isoformat() if isinstance(at, datetime) else at
        return self.api.get(path, person, self.slug, query_string=more | ({"at": text} if text else {})).json


@pytest.mark.parametrize("slug", ["eur", "km"])
@pytest.mark.parametrize("by_admin", [False, True])
def test_the_balance_at_a_moment_includes_that_very_moment(app: Flask, slug: str, by_admin: bool) -> None:
    reader = Reader(app, slug)
    first, second = reader.post("deposit", 1_000), reader.post("payment", 2_500)

    def held(at: datetime | str | None) -> str:
        return str(reader.balance(at, by_admin=by_admin)["balance"])

    assert [held("0001-01-01T00:00:00Z"), held(first - MICROSECOND), held(first)] == ["0.00", "0.00", "10.00"]
    assert [held(second - MICROSECOND), held(second)] == ["10.00", "-15.00"]
    assert [held("2999-01-01T00:00:00Z"), held("9999-12-31T23:59:59.999999Z"), held(None)] == ["-15.00"] * 3


def test_a_balance_says_of_what_it_is_and_when_and_is_split_into_deposit_and_credit(app: Flask) -> None:
    reader = Reader(app, "eur")
    reader.post("deposit", 1_000)
    reader.post("payment", 2_500)
    assert reader.balance("2999-01-01T01:00:00+01:00") == {
        "walletId": str(reader.wallet_id),
        "currency": "EUR",
        "at": "2999-01-01T00:00:00.000000Z",
        "balance": "-15.00",
        "depositBalance": "0.00",
        "creditUsed": "15.00",
    }


def test_now_is_by_the_clock_that_dates_transactions(app: Flask, database: Database) -> None:
    """A wallet's last transaction is never in the future, however slow the service's clock."""
    reader = Reader(app, "eur")
    posted = reader.post("deposit", 1_000)
    now = datetime.fromisoformat(reader.balance()["at"])
    (later,) = database.as_superuser().execute("SELECT clock_timestamp()").fetchone() or (None,)
    assert posted <= now <= later


@pytest.mark.parametrize(("currency", "balance"), [("JPY", "1250"), ("KWD", "1.250"), ("USD", "12.50"), (None, "0.00")])
def test_a_member_has_a_balance_in_each_currency(app: Flask, currency: str | None, balance: str) -> None:
    reader = Reader(app, "eur", currency)
    if currency:
        reader.post("deposit", 1_250)
    shown = reader.balance(**({"currency": currency} if currency else {}))
    assert (shown["currency"], shown["balance"]) == (currency or "EUR", balance)
    assert reader.balance()["currency"] == "EUR"


def test_another_tenants_wallet_has_no_balance_here(app: Flask) -> None:
    reader, other = Reader(app, "eur"), Reader(app, "km")
    answer = reader.api.get(f"/api/admin/wallets/{other.wallet_id}/balance", reader.admin, "eur")
    assert (answer.status_code, answer.get_json()["code"]) == (404, "wallet_not_found")


def test_the_trial_balance_keeps_currencies_apart_and_splits_the_control_account(fresh_app: Flask) -> None:
    for currency in ("EUR", "JPY", "KWD"):
        saver, debtor = Reader(fresh_app, "eur", currency), Reader(fresh_app, "eur", currency)
        saver.post("deposit", 10_000)
        saver.post("payment", 2_500)
        debtor.post("payment", 1_234)
    answer = saver.api.get("/api/admin/trial-balance", saver.admin, "eur")
    assert answer.status_code == 200
    lines = answer.get_json()["lines"]
    told = [(line["currency"], line["account"], line["part"], line["debit"], line["credit"]) for line in lines]
    assert told == [
        ("EUR", "cash", None, "100.00", "0.00"),
        ("EUR", "sales", None, "0.00", "37.34"),
        ("EUR", "wallets", "owed by members", "12.34", "0.00"),
        ("EUR", "wallets", "owed to members", "0.00", "75.00"),
        ("JPY", "cash", None, "10000", "0"),
        ("JPY", "sales", None, "0", "3734"),
        ("JPY", "wallets", "owed by members", "1234", "0"),
        ("JPY", "wallets", "owed to members", "0", "7500"),
        ("KWD", "cash", None, "10.000", "0.000"),
        ("KWD", "sales", None, "0.000", "3.734"),
        ("KWD", "wallets", "owed by members", "1.234", "0.000"),
        ("KWD", "wallets", "owed to members", "0.000", "7.500"),
    ]
    difference: defaultdict[str, Decimal] = defaultdict(Decimal)
    for line in lines:
        difference[line["currency"]] += Decimal(line["debit"]) - Decimal(line["credit"])
    assert difference == {"EUR": 0, "JPY": 0, "KWD": 0}
    assert answer.get_json()["totals"] == [
        {"currency": "EUR", "debit": "112.34", "credit": "112.34"},
        {"currency": "JPY", "debit": "11234", "credit": "11234"},
        {"currency": "KWD", "debit": "11.234", "credit": "11.234"},
    ]
    assert {line["account"]: line["kind"] for line in lines if line["part"] != "owed by members"} == {
        "cash": "asset",
        "sales": "revenue",
        "wallets": "liability",
    }


@pytest.mark.parametrize("slug", ["eur", "km"])
def test_a_tenant_without_money_has_an_empty_trial_balance_and_a_member_may_not_ask(
    fresh_app: Flask, slug: str
) -> None:
    people, api = People(fresh_app), Api(fresh_app)
    path = "/api/admin/trial-balance"
    assert api.get(path, people.make(**{slug: "admin"}), slug).get_json() == {"lines": [], "totals": []}
    assert api.get(path, people.make(**{slug: "member"}), slug).status_code == 403
