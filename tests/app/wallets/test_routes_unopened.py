"""A member's wallet before it is opened: no GET opens it, and the first movement does."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from psycopg.types.json import Jsonb
from werkzeug.test import TestResponse

from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.catalogue import Catalogue
from tests.factories.people import People, Person

OVER_TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])
CURRENCY = {"eur": "EUR", "km": "BAM"}
LOOKS = (
    *("wallet", "wallets", "wallet/transactions", "wallet/balance", "wallet/holds", "orders"),
    *(f"wallet/statement{form}?from=2000-01-01T00:00:00Z&to=2999-01-01T00:00:00Z" for form in ("", ".csv", ".pdf")),
)


class Newcomer:
    """A member without a wallet."""

    def __init__(self, app: Flask, database: Database, slug: str) -> None:
        self.app, self.slug, self.database = app, slug, database
        self.person: Person = People(app).make(**{slug: "member"})

    def get(self, path: str) -> TestResponse:
        return Api(self.app).get(f"/api/{path}", self.person, self.slug)

    def post(self, path: str, **body: Any) -> TestResponse:
        return Api(self.app).post(f"/api/{path}", self.person, self.slug, json=body)

    def opened(self) -> list[UUID]:
        query = f"SELECT id FROM {self.slug}_schema.wallets WHERE user_id = %s"
        return [row[0] for row in self.database.as_superuser().execute(query.encode(), (self.person.user_id,))]


@pytest.fixture(params=["eur", "km"])
def newcomer(request: pytest.FixtureRequest, app: Flask, database: Database) -> Newcomer:
    return Newcomer(app, database, request.param)


@pytest.fixture
def product(database: Database) -> UUID:
    return Catalogue(database).product(EUR="1.00", BAM="1.00")[1]


def test_no_look_opens_a_wallet(newcomer: Newcomer) -> None:
    for path in LOOKS:
        answer = newcomer.get(path)
        assert answer.status_code == 200, (path, answer.text)
        assert answer.get_data()
    assert newcomer.opened() == []
    assert newcomer.get("wallets").json == {"items": [], "nextCursor": None}


def test_a_wallet_is_shown_as_it_would_be_opened(newcomer: Newcomer) -> None:
    shown = newcomer.get("wallet").json
    assert UUID(shown.pop("id")).version == 8
    nothing = dict.fromkeys(("balance", "depositBalance", "creditLimit", "creditUsed", "held", "available"), "0.00")
    assert shown == nothing | {
        "tenantId": newcomer.slug,
        "userId": str(newcomer.person.user_id),
        "currency": CURRENCY[newcomer.slug],
        "status": "active",
        "openedAt": None,
        "version": 1,
    }


def test_the_id_of_the_first_look_stays(newcomer: Newcomer, app: Flask) -> None:
    before = newcomer.get("wallet").json
    admin = People(app).make(**{newcomer.slug: "admin"})
    body = {"userId": str(newcomer.person.user_id)}
    opened = Api(app).post("/api/admin/wallets", admin, newcomer.slug, json=body)
    assert opened.status_code == 201
    after = newcomer.get("wallet").json
    assert after.pop("openedAt")
    assert {**after, "openedAt": None} == before
    assert [wallet["id"] for wallet in newcomer.get("wallets").json["items"]] == [before["id"]]


@OVER_TENANTS
def test_each_tenant_has_a_wallet_of_its_own(app: Flask, slug: str) -> None:
    person = People(app).make(eur="member", km="member")
    shown = [Api(app).get("/api/wallet", person, name).json["id"] for name in ("eur", "km")]
    assert shown[0] != shown[1]


def test_a_first_payment_opens_the_wallet_with_the_policys_credit(fresh_app: Flask, fresh_database: Database) -> None:
    newcomer, admin = Newcomer(fresh_app, fresh_database, "eur"), People(fresh_app).make(eur="admin")
    policy = {"defaultLimit": "5.00", "maxLimit": None}
    Api(fresh_app).send("PUT", "/api/admin/credit-policies/EUR", admin, "eur", json=policy)
    shown = newcomer.get("wallet").json
    assert (shown["creditLimit"], shown["available"], shown["openedAt"]) == ("5.00", "5.00", None)
    dry = newcomer.post("wallet/payments?dryRun=true", amount="3.00")
    assert (dry.status_code, dry.json["balanceAfter"], newcomer.opened()) == (200, "-3.00", [])
    paid = newcomer.post("wallet/payments", amount="3.00")
    assert (paid.status_code, paid.json["walletId"], paid.json["balanceAfter"]) == (201, shown["id"], "-3.00")
    assert newcomer.opened() == [UUID(shown["id"])]


@pytest.mark.parametrize("what", ["payment", "hold", "order"])
def test_a_first_movement_opens_the_wallet_and_says_that_it_is_empty(
    newcomer: Newcomer, product: UUID, what: str
) -> None:
    path, body = {
        "payment": ("wallet/payments", {"amount": "1.00"}),
        "hold": ("wallet/holds", {"amount": "1.00"}),
        "order": ("orders", {"items": [{"productId": str(product), "quantity": 1}]}),
    }[what]
    answer = newcomer.post(f"{path}?dryRun=true", **body)
    assert (answer.status_code, answer.json["code"], newcomer.opened()) == (409, "insufficient_funds", [])
    answer = newcomer.post(path, **body)
    assert (answer.status_code, answer.json["code"], len(newcomer.opened())) == (409, "insufficient_funds", 1)


def test_many_first_payments_at_once_open_one_wallet(newcomer: Newcomer) -> None:
    together = Barrier(6)

    def pay() -> TestResponse:
        together.wait(timeout=10)
        return newcomer.post("wallet/payments", amount="1.00")

    with ThreadPoolExecutor(6) as pool:
        answers = [job.result() for job in [pool.submit(pay) for _ in range(6)]]
    assert {answer.json["code"] for answer in answers} == {"insufficient_funds"}
    assert len(newcomer.opened()) == 1


def test_an_opening_balance_finds_the_id_that_was_shown(newcomer: Newcomer, database: Database) -> None:
    """Also if an import opens the wallet, and not the member."""
    shown = newcomer.get("wallet").json["id"]
    item = {
        "user_id": str(newcomer.person.user_id),
        "calculated_minor": 5,
        "source_rows": 1,
        "source_hash": uuid4().hex,
    }
    import_ = "SELECT moved_minor FROM openings_post_v3(jsonb_build_array(%s::jsonb), %s, true)"
    row = database.as_tenant(newcomer.slug).execute(import_, (Jsonb(item), CURRENCY[newcomer.slug])).fetchone()
    assert row == (5,)
    assert newcomer.opened() == [UUID(shown)]
