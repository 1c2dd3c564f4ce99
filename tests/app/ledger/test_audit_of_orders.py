"""The audit finds a superuser's change of a hold, an order or a credit policy where money depends on it."""

from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.catalogue import Catalogue
from tests.factories.people import People

Superuser = psycopg.Connection[Any]
OTHER = "(SELECT id FROM wallets WHERE balance_minor = 7777)"
TAMPERING = {
    "an order cancelled without its refund": "UPDATE orders SET status = 'cancelled', cancelled_at = now()",
    "an order's refund, when it has none": (
        "UPDATE orders SET refund_id = payment_id, status = 'cancelled', cancelled_at = now()"
    ),
    "whose order it is": "UPDATE orders SET user_id = gen_random_uuid()",
    "whose wallet paid it": f"UPDATE orders SET wallet_id = {OTHER}",
    "an order's total": "UPDATE orders SET total_minor = total_minor + 1",
    "all items of an order": "DELETE FROM order_items",
    "an item's price": "UPDATE order_items SET unit_price_minor = 1, line_total_minor = quantity",
    "what paid an order": (
        "UPDATE order_payments SET transaction_id = (SELECT id FROM wallet_transactions WHERE type = 'deposit' LIMIT 1)"
    ),
    "a hold that did not pay it": "UPDATE order_payments SET hold_id = (SELECT id FROM holds) WHERE hold_id IS NULL",
    "that an order was paid": "DELETE FROM order_payments",
    "an unpaid order": "UPDATE order_payments SET order_id = 'another' WHERE hold_id IS NULL",
    "a hold's order": "UPDATE holds SET order_id = 'another'",
    "a hold's wallet": f"UPDATE holds SET wallet_id = {OTHER}",
    "what was captured": "UPDATE holds SET captured_minor = captured_minor - 1",
    "a hold's amount": "UPDATE holds SET amount_minor = amount_minor + 1",
    "a hold voided": "UPDATE holds SET status = 'voided', ended_at = now()",
    "a hold gone": "DELETE FROM holds",
    "a policy": "UPDATE credit_policies SET default_limit_minor = 400",
    "a policy gone": "DELETE FROM credit_policies",
    "a policy without an entry": "INSERT INTO credit_policies VALUES ('USD', 5, 5)",
    "an order paid a second time": (
        "DELETE FROM order_payments WHERE hold_id IS NULL;"
        f" SELECT wallet_post_v2({OTHER}, 'payment', 1, 'again', NULL, (SELECT id::text FROM orders), NULL, NULL, NULL,"
        " NULL)"
    ),
}


@pytest.fixture
def superuser(fresh_app: Flask, fresh_database: Database) -> Superuser:
    """A superuser in eur's schema with triggers disabled, with an order, a hold and a policy."""
    people, api = People(fresh_app), Api(fresh_app)
    buyer, other, admin = people.make(eur="member"), people.make(eur="member"), people.make(eur="admin")
    people.wallet(other, "eur", balance_minor=7_777)
    people.wallet(buyer, "eur", balance_minor=10_000)
    _, product = Catalogue(fresh_database).product(EUR="7.00")
    hold = api.post("/api/wallet/holds", buyer, "eur", json={"amount": "9.00", "orderId": uuid4().hex}).json
    for path, body in (
        ("orders", {"items": [{"productId": str(product), "quantity": 2}]}),
        (f"wallet/holds/{hold['id']}/capture", {"amount": "4.00"}),
    ):
        assert api.post(f"/api/{path}", buyer, "eur", json=body).status_code == 201
    policy = {"defaultLimit": "1.00", "maxLimit": "9.00"}
    assert api.send("PUT", "/api/admin/credit-policies/EUR", admin, "eur", json=policy).status_code == 200
    connection = fresh_database.as_superuser()
    connection.execute("SET search_path TO eur_schema")
    connection.execute("SET session_replication_role TO replica")
    assert connection.execute("SELECT * FROM ledger_audit_v5()").fetchall() == []
    return connection


def found_by_prover(superuser: Superuser) -> list[Any]:
    """A pass over all rows, in steps of two."""
    while superuser.execute("SELECT proof_step_v1(2, interval '0')").fetchall() != [("done",)]:
        pass
    return superuser.execute("SELECT * FROM proof_findings").fetchall()


def test_each_tampering_is_found(superuser: Superuser) -> None:
    for what, statement in TAMPERING.items():
        with superuser.transaction(force_rollback=True):
            superuser.execute(statement.encode())
            assert superuser.execute("SELECT * FROM ledger_audit_v5()").fetchall() != [], what
            assert found_by_prover(superuser) != [], what
    assert superuser.execute("SELECT * FROM ledger_audit_v5()").fetchall() == []
    assert found_by_prover(superuser) == []


def test_the_finding_names_the_wallet_that_paid(superuser: Superuser) -> None:
    (wallet_id,) = superuser.execute("SELECT wallet_id FROM orders").fetchall()[0]
    superuser.execute("DELETE FROM order_items")
    found = superuser.execute("SELECT wallet_id, finding FROM ledger_audit_v5()").fetchall()
    (order_id,) = superuser.execute("SELECT id FROM orders").fetchall()[0]
    assert found == [(UUID(str(wallet_id)), f"order {order_id} is not what this paid")]
