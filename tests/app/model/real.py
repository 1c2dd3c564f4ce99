"""The real service in one tenant, with the verbs of Books: over HTTP where a route exists.

Answers and the database's content are translated into the terms of the model. A refusal is raised as the model's
Refused, by its code.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from flask import Flask
from psycopg.rows import dict_row
from werkzeug.test import TestResponse

from app.db import db
from app.errors import ServiceError
from app.holds.service import expire_holds
from app.ledger.models import Movement as Posting
from app.ledger.models import PostedTransaction
from app.ledger.service import post
from tenant_schemas.flask import tenant_context
from tenant_schemas.testing.plugin import Database
from tests.app.model.picture import Picture, read_picture
from tests.app.model.wallet import Authorised, Movement, Receipt, Refused, of_staff
from tests.factories.api import Api
from tests.factories.feed import Feed
from tests.factories.people import People, Person

DIGITS = {"EUR": 2, "BAM": 2, "JPY": 0}
SHOWN = ("balance", "depositBalance", "creditLimit", "creditUsed", "held", "available", "currency", "status")
Login = psycopg.Connection[dict[str, Any]]
TENANTS = {"eur": ("EUR", "JPY"), "km": ("BAM",)}
EMPTIED = (
    *("wallets", "wallet_transactions", "ledger_entries", "holds", "orders", "order_items", "order_payments"),
    *("credit_policies", "audit_log", "reconciliations", "bulk_requests", "events"),
)


class RealTenant:
    """One tenant, two members with their wallets, and an admin."""

    def __init__(self, slug: str, app: Flask, database: Database, products: dict[str, UUID]) -> None:
        people = People(app)
        self.slug, self.app, self.api, self.products = slug, app, Api(app), products
        self.members = [people.make(**{slug: "member"}) for _ in range(2)]
        self.admin = people.make(**{slug: "admin"})
        self.superuser = database.as_superuser()
        self.login: Login = database.as_tenant(slug)  # type: ignore[assignment]
        self.login.row_factory = dict_row
        self.empty()

    def empty(self) -> None:
        """Empty the books for the next run, as only a superuser can."""
        with self.superuser.transaction():
            self.superuser.execute("SET LOCAL session_replication_role TO replica")
            for table in EMPTIED:
                self.superuser.execute(f"DELETE FROM {self.slug}_schema.{table}".encode())
            self.superuser.execute(
                f"UPDATE {self.slug}_schema.audit_chain"
                " SET last_seq = 0, last_at = '-infinity', last_hash = sha256('audit log')".encode()
            )
            self.superuser.execute(f"UPDATE {self.slug}_schema.events_head SET position = 0, trimmed_to = 0".encode())
        self.owners: dict[str, tuple[Person, str]] = {}  # of wallets: member, currency
        self.orders: list[str] = []  # their ids, as they were placed
        self.first_answers: dict[tuple[str, str], dict[str, Any]] = {}
        self.look()

    def look(self) -> Picture:
        """The current content of the tenant's database."""
        self.picture = read_picture(self.login, self.orders)
        return self.picture

    def audit(self) -> list[dict[str, Any]]:
        return self.login.execute("SELECT * FROM ledger_audit_v5()", prepare=True).fetchall()

    def audit_events(self) -> list[dict[str, Any]]:
        """What the feed lacks or has too much. What is new gets its number first."""
        self.login.execute("SELECT events_stamp_v1(500)", prepare=True)
        return self.login.execute("SELECT * FROM events_audit_v1()", prepare=True).fetchall()

    def events(self, wallet: str) -> list[tuple[str, int, str]]:
        """The movements that the feed tells of: type, number, and balance afterwards."""
        found = [event.body for event in Feed(self.app, self.slug).of(UUID(wallet)) if ".posted." in event.type]
        return [(body["type"], body["data"]["seq"], body["data"]["balanceAfter"]) for body in found]

    # Wallets and limits.

    def open(self, member: int, currency: str) -> str:
        body = {"userId": str(self.members[member].user_id), "currency": currency}
        wallet = str(_told(self.api.post("/api/admin/wallets", self.admin, self.slug, json=body))["id"])
        self.owners[wallet] = (self.members[member], currency)
        return wallet

    def show(self, wallet: str) -> dict[str, str]:
        """The wallet in its member's view."""
        member, currency = self.owners[wallet]
        told = _told(self.api.get(f"/api/wallet?currency={currency}", member, self.slug))
        return {name: told[name] for name in SHOWN}

    def set_policy(self, currency: str, default: int, highest: int | None) -> None:
        limits = {"defaultLimit": default, "maxLimit": highest}
        body = {name: limit if limit is None else written(limit, currency) for name, limit in limits.items()}
        _told(self.api.send("PUT", f"/api/admin/credit-policies/{currency}", self.admin, self.slug, json=body))

    def configure(self, wallet: str, version: int, limit: int | None, status: str | None) -> None:
        _, currency = self.owners[wallet]
        body = {"creditLimit": None if limit is None else written(limit, currency), "status": status}
        changed = {name: value for name, value in body.items() if value is not None}
        path = f"/api/admin/wallets/{wallet}"
        _told(self.api.patch(path, self.admin, self.slug, if_match=f'"{version}"', json=changed))

    # Movements.

    def deposit(self, wallet: str, key: str, amount: int) -> Receipt:
        return self._by_admin(wallet, key, "deposits", amount=amount)

    def pay(self, wallet: str, key: str, amount: int, order: str | None, by_admin: bool) -> Receipt:
        return self._pay(wallet, key, amount, order, by_admin, dry_run="false")

    def rehearse(self, wallet: str, key: str, amount: int, order: str | None, by_admin: bool) -> Receipt:
        return self._pay(wallet, key, amount, order, by_admin, dry_run="true")

    def _pay(self, wallet: str, key: str, amount: int, order: str | None, by_admin: bool, *, dry_run: str) -> Receipt:
        member, currency = self.owners[wallet]
        body = {"amount": written(amount, currency)} | ({"orderId": order} if order else {})
        if by_admin:
            answer = self._send(wallet, f"/api/admin/wallets/{wallet}/payments?dryRun={dry_run}", key, body)
        else:
            path = f"/api/wallet/payments?currency={currency}&dryRun={dry_run}"
            answer = self.api.post(path, member, self.slug, key=key, json=body)
        key = of_staff(key) if by_admin else key
        return self._receipt(wallet, answer, key if dry_run == "false" else None)

    def adjust(self, wallet: str, key: str, amount: int) -> Receipt:
        return self._by_admin(wallet, key, "adjustments", amount=amount, reason="because")

    def opening(self, wallet: str, key: str, amount: int) -> Receipt:
        """No route posts openings."""
        with self.app.app_context(), tenant_context(self.slug), _refusals_by_code():
            movement = Posting(type="opening", amount_minor=amount, idempotency_key=key)
            return _posted(*post(UUID(wallet), movement))

    def refund(self, wallet: str, key: str, payment: int, amount: int | None) -> Receipt:
        known = self._id_of(wallet, payment)
        return self._by_admin(wallet, key, "refunds", amount=amount, paymentId=known)

    def bulk(self, key: str, items: list[dict[str, Any]], atomic: bool) -> list[Any]:
        asked = [
            {
                "walletId": item["wallet"],
                "type": item["type"],
                "amount": written(item["amount"], self.owners[item["wallet"]][1]),
                **({"orderId": item["order"]} if item["order"] else {}),
                **({"reason": "because"} if item["type"] == "adjustment" else {}),
            }
            for item in items
        ]
        body = {"atomic": atomic, "items": asked}
        answer = self.api.post("/api/admin/transactions/bulk", self.admin, self.slug, key=key, json=body)
        outcomes = _told(answer)["items"]
        assert [outcome["index"] for outcome in outcomes] == list(range(len(items)))
        return [self._outcome(item["wallet"], outcome) for item, outcome in zip(items, outcomes, strict=True)]

    def _outcome(self, wallet: str, outcome: dict[str, Any]) -> Any:
        if "problem" in outcome:
            return outcome["problem"]["code"]
        told = outcome["transaction"]
        return Receipt(self._movement(wallet, told), self._refundable(wallet, told), outcome["replayed"])

    # Holds.

    def authorise(self, wallet: str, key: str, amount: int, order: str | None) -> Authorised:
        member, currency = self.owners[wallet]
        body = {"amount": written(amount, currency)} | ({"orderId": order} if order else {})
        answer = self.api.post(f"/api/wallet/holds?currency={currency}", member, self.slug, key=key, json=body)
        told = self._told_once(wallet, f"hold {key}", answer, except_for="expiresAt")  # time_is_over() moves it.
        assert (told["status"], told["captured"], told["capturable"]) == (
            "active",
            written(0, currency),
            told["amount"],
        )
        return Authorised(self._number_of_hold(wallet, told["id"]), minor(told["amount"], currency), _replayed(answer))

    def capture(self, wallet: str, key: str, hold: int, amount: int | None) -> Receipt:
        member, currency = self.owners[wallet]
        body = {} if amount is None else {"amount": written(amount, currency)}
        path = f"/api/wallet/holds/{self._id_of_hold(wallet, hold)}/capture"
        return self._receipt(wallet, self.api.post(path, member, self.slug, key=key, json=body), key)

    def void(self, wallet: str, hold: int) -> str:
        member, _ = self.owners[wallet]
        told = _told(self.api.post(f"/api/wallet/holds/{self._id_of_hold(wallet, hold)}/void", member, self.slug))
        return str(told["status"])

    def time_is_over(self, wallet: str, hold: int) -> None:
        """Let the hold's time pass: its expiry is moved to before now."""
        statement = (
            f"UPDATE {self.slug}_schema.holds SET expires_at = clock_timestamp() WHERE id = %s AND status = 'active'"
        )
        self.superuser.execute(statement.encode(), (self._id_of_hold(wallet, hold),))

    def expire(self) -> None:
        """The work of `flask wallets expire-holds`. Afterwards no expired hold is active."""
        with self.app.app_context(), tenant_context(self.slug):
            expire_holds()
            db.session.commit()
        late = "SELECT count(*) AS late FROM holds WHERE status = 'active' AND expires_at <= clock_timestamp()"
        assert self.login.execute(late).fetchall() == [{"late": 0}]

    # Orders.

    def place(self, wallet: str, key: str, items: list[tuple[str, int]]) -> tuple[str, int, Receipt]:
        member, currency = self.owners[wallet]
        body = {"items": [{"productId": str(self.products[name]), "quantity": count} for name, count in items]}
        answer = self.api.post(f"/api/orders?currency={currency}", member, self.slug, key=key, json=body)
        told = self._told_once(wallet, key, answer)
        if told["id"] not in self.orders:
            self.orders.append(told["id"])
        payment = _told(self.api.get(f"/api/wallet/transactions/{told['paymentId']}", member, self.slug))
        assert payment["balanceAfter"] == told["balanceAfter"]
        receipt = Receipt(self._movement(wallet, payment), minor(told["total"], currency), _replayed(answer))
        return self._name_of_order(told["id"]) or "", minor(told["total"], currency), receipt

    def cancel(self, number: int, key: str) -> tuple[int, int | None, bool]:
        wallet = self.picture.orders[number - 1].wallet
        member, currency = self.owners[wallet]
        answer = self.api.post(f"/api/orders/{self.orders[number - 1]}/cancel", member, self.slug, key=key)
        told = self._told_once(wallet, f"cancelling {number}", answer)
        after = told["balanceAfter"]
        return minor(told["refunded"], currency), after and minor(after, currency), _replayed(answer)

    # Between the model's words and the service's.

    def _by_admin(self, wallet: str, key: str, what: str, amount: int | None, **more: str) -> Receipt:
        body = more if amount is None else more | {"amount": written(amount, self.owners[wallet][1])}
        answer = self._send(wallet, f"/api/admin/wallets/{wallet}/{what}", key, body)
        return self._receipt(wallet, answer, of_staff(key))

    def _send(self, wallet: str, path: str, key: str, body: dict[str, Any]) -> TestResponse:
        return self.api.post(path, self.admin, self.slug, key=key, json=body)

    def _receipt(self, wallet: str, answer: TestResponse, key: str | None) -> Receipt:
        told = self._told_once(wallet, key, answer) if key else _told(answer)
        return Receipt(self._movement(wallet, told), self._refundable(wallet, told), _replayed(answer))

    def _refundable(self, wallet: str, told: dict[str, Any]) -> int | None:
        left = told["refundable"]
        return None if left is None else minor(left, self.owners[wallet][1])

    def _told_once(self, wallet: str, key: str, answer: TestResponse, except_for: str = "") -> dict[str, Any]:
        """The same key and request get the very same answer, every time."""
        told = {name: value for name, value in _told(answer).items() if name != except_for}
        first = self.first_answers.setdefault((wallet, key), told)
        assert told == first, f"asked again, {told} instead of {first}"
        return told

    def _movement(self, wallet: str, told: dict[str, Any]) -> Movement:
        _, currency = self.owners[wallet]
        return Movement(
            number=told["seq"],
            type=told["type"],
            amount=minor(told["amount"], currency),
            balance_after=minor(told["balanceAfter"], currency),
            order=self._name_of_order(told["orderId"]),
            refund_of=told["paymentId"] and self.picture.numbers[told["paymentId"]],
            hold=told["holdId"] and self._number_of_hold(wallet, told["holdId"]),
        )

    def _name_of_order(self, told: str | None) -> str | None:
        return f"order {self.orders.index(told) + 1}" if told in self.orders else told

    def _id_of(self, wallet: str, payment: int) -> str:
        """The id of one of the wallet's transactions, or an unknown one."""
        return self.picture.ids.get((wallet, payment), str(UUID(int=0)))

    def _id_of_hold(self, wallet: str, hold: int) -> str:
        return self.picture.holds[wallet][hold - 1]

    def _number_of_hold(self, wallet: str, told: str) -> int:
        known = self.picture.holds.get(wallet, [])
        return known.index(told) + 1 if told in known else len(known) + 1


@contextmanager
def _refusals_by_code() -> Iterator[None]:
    try:
        yield
    except ServiceError as error:
        raise Refused(error.code) from error


def _posted(posted: PostedTransaction | None, replayed: bool) -> Receipt:
    """Of a movement without payment or hold."""
    assert posted is not None
    movement = Movement(posted.seq, posted.type, posted.amount_minor, posted.balance_after_minor, posted.order_id)
    return Receipt(movement, posted.refundable_minor, replayed)


def written(amount: int, currency: str) -> str:
    """Minor units as a decimal string, by Python's decimal and not by the service's code."""
    return f"{Decimal(amount).scaleb(-DIGITS[currency]):f}"


def minor(told: str, currency: str) -> int:
    return int(Decimal(told).scaleb(DIGITS[currency]))


def _told(answer: TestResponse) -> dict[str, Any]:
    told: Any = answer.json
    if answer.status_code >= 400:
        assert answer.status_code < 500, answer.text
        raise Refused(told["code"])
    return dict(told)


def _replayed(answer: TestResponse) -> bool:
    return answer.headers.get("Idempotent-Replayed") == "true"
