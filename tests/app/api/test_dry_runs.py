"""A dry run answers what the request would answer, marked as such, and writes nothing."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.catalogue import Catalogue
from tests.factories.people import People, Person

# Of the answers of two requests, what differs.
OWN = {"id", "createdAt", "expiresAt", "paymentId", "refundId", "cancelledAt", "dryRun"}


class Counter:
    """A tenant with a member's wallet of 100.00, a payment, a hold and an order."""

    def __init__(self, app: Flask, database: Database, slug: str) -> None:
        people, self.slug, self.database = People(app), slug, database
        self.api = Api(app)
        self.member, self.admin = people.make(**{slug: "member"}), people.make(**{slug: "admin"})
        self.wallet_id = people.wallet(self.member, slug, balance_minor=10_000)
        self.product: UUID = Catalogue(database).product(EUR="1.00", BAM="1.00")[1]
        self.items = {"items": [{"productId": str(self.product), "quantity": 2}]}
        self.payment = self._made("wallet/payments", {"amount": "9.00"})
        self.hold = self._made("wallet/holds", {"amount": "9.00"})
        self.order = self._made("orders", self.items)

    def _made(self, path: str, body: dict[str, Any]) -> str:
        return str(self.api.post(f"/api/{path}", self.member, self.slug, json=body).json["id"])

    def request(self, what: str) -> tuple[str, dict[str, Any] | None]:
        wallet = f"/api/admin/wallets/{self.wallet_id}"
        return {
            "deposit": (f"{wallet}/deposits", {"amount": "1.00"}),
            "staff payment": (f"{wallet}/payments", {"amount": "1.00"}),
            "refund": (f"{wallet}/refunds", {"paymentId": self.payment, "amount": "2.00"}),
            "adjustment": (f"{wallet}/adjustments", {"amount": "-1.00", "reason": "counted"}),
            "payment": ("/api/wallet/payments", {"amount": "1.00"}),
            "hold": ("/api/wallet/holds", {"amount": "1.00"}),
            "capture": (f"/api/wallet/holds/{self.hold}/capture", {"amount": "1.00"}),
            "order": ("/api/orders", self.items),
            "cancel": (f"/api/orders/{self.order}/cancel", None),
        }[what]

    def send(self, what: str, key: str, *, dry: bool, **changed: Any) -> Any:
        path, body = self.request(what)
        person = self.admin if path.startswith("/api/admin") else self.member
        sent = {} if body is None else {"json": body | changed}
        return self.api.post(f"{path}?dryRun={str(dry).lower()}", person, self.slug, key=key, **sent)

    def written(self) -> list[Any]:
        tables = ("wallets", "wallet_transactions", "holds", "orders", "order_items", "order_payments", "audit_log")
        sums = (f"(SELECT sum(hashtextextended(r::text, 0)::numeric) FROM {self.slug}_schema.{t} r)" for t in tables)
        return self.database.as_superuser().execute(f"SELECT {', '.join(sums)}".encode()).fetchall()


VERBS = ("deposit", "staff payment", "refund", "adjustment", "payment", "hold", "capture", "order", "cancel")


@pytest.fixture(params=["eur", "km"])
def counter(request: pytest.FixtureRequest, app: Flask, database: Database) -> Counter:
    return Counter(app, database, request.param)


@pytest.mark.parametrize("what", VERBS)
def test_a_dry_run_answers_as_the_request_and_writes_nothing(counter: Counter, what: str) -> None:
    before, key = counter.written(), uuid4().hex
    dry = counter.send(what, key, dry=True)
    assert counter.written() == before
    real = counter.send(what, key, dry=False)
    assert (dry.status_code, real.status_code) == (200, 200 if what == "cancel" else 201), dry.text
    assert (dry.json["dryRun"], real.json.get("dryRun")) == (True, None)
    assert "Location" not in dry.headers
    assert {k: v for k, v in dry.json.items() if k not in OWN} == {k: v for k, v in real.json.items() if k not in OWN}


@pytest.mark.parametrize(
    ("what", "code"),
    [("refund", "refund_exceeds_payment"), ("hold", "insufficient_funds"), ("capture", "capture_exceeds_hold")],
)
def test_a_dry_run_is_refused_as_the_request_would_be(counter: Counter, what: str, code: str) -> None:
    before = counter.written()
    dry = counter.send(what, uuid4().hex, dry=True, amount="999.00")
    assert (dry.status_code, dry.json["code"]) == (409, code)
    if what != "refund":
        assert counter.written() == before


def test_a_dry_run_of_a_used_key_is_told_apart(counter: Counter) -> None:
    key = uuid4().hex
    counter.send("refund", key, dry=False)
    dry = counter.send("refund", key, dry=True)
    assert (dry.status_code, dry.json["dryRun"], dry.headers["Idempotent-Replayed"]) == (200, True, "true")


@pytest.fixture
def newcomer(fresh_app: Flask, fresh_database: Database) -> Person:
    """A member without a wallet, whose wallet is to have a credit limit from the start."""
    insert = """
        INSERT INTO eur_schema.credit_policies (currency, max_limit_minor, default_limit_minor)
        VALUES ('EUR', %s, %s)"""
    fresh_database.as_superuser().execute(insert, (5000, 5000))
    return People(fresh_app).make(eur="member")


def test_a_members_dry_run_of_a_first_payment_waits_for_no_audit_entry(
    fresh_app: Flask, fresh_database: Database, newcomer: Person
) -> None:
    """It would hold the chain's head while it waits for an order that a teller's payment has, which wants the head."""
    with fresh_database.as_superuser() as other, other.transaction():
        other.execute("SELECT FROM eur_schema.audit_chain FOR UPDATE")
        body = {"amount": "1.00", "orderId": "order-1"}
        dry = Api(fresh_app).post("/api/wallet/payments?dryRun=true", newcomer, "eur", json=body)
    assert (dry.status_code, dry.json["balanceAfter"]) == (200, "-1.00"), dry.text


def test_a_wallet_of_a_dry_run_that_is_committed_is_reported(fresh_database: Database, newcomer: Person) -> None:
    """It has a credit limit and no audit entry."""
    with fresh_database.as_tenant("eur") as tenant:
        tenant.execute("SELECT wallet_rehearse_v1(%s, 'EUR')", (newcomer.user_id,))
        found = tenant.execute("SELECT finding FROM ledger_audit_v5()").fetchall()
    assert ("limit or status is not what the audit log says",) in found
