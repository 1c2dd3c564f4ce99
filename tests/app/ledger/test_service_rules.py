"""The rules of a wallet's and of a movement's row, attacked by a superuser, whom no privilege stops. One CHECK for each
table holds them all; the error names the rule as its constraint.
"""

from typing import Any
from uuid import uuid4

import psycopg
import pytest
from flask import Flask

from app.money import MAX_MINOR
from tenant_schemas.testing.plugin import Database
from tests.factories.people import People

WALLET_RULES = {
    "wallets_currency_is_code": ("currency = 'eur'", "currency = 'EURO'", "currency = ''"),
    "wallets_status_known": ("status = 'open'", "status = ''"),
    "wallets_credit_limit_not_negative": ("credit_limit_minor = -1",),
    "wallets_held_not_negative": ("held_minor = -1",),
    "wallets_available_not_negative": (
        "balance_minor = -1, uses_credit = true",
        "held_minor = 1001",
        "credit_limit_minor = 5, balance_minor = -6, uses_credit = true",
        "credit_limit_minor = 5, held_minor = 1006",
    ),
    "wallets_closed_is_empty": (
        "status = 'closed'",
        "status = 'closed', balance_minor = 0, credit_limit_minor = 9, held_minor = 1",
        "status = 'closed', credit_limit_minor = 9, balance_minor = -1, uses_credit = true",
    ),
    "wallets_uses_credit_below_zero": ("uses_credit = true", "credit_limit_minor = 5, balance_minor = -1"),
}
# Each changes one thing of a deposit of 1, which is right.
DEPOSIT: dict[str, Any] = {
    "currency": "BAM",
    "seq": 2,
    "type": "deposit",
    "amount_minor": 1,
    "balance_after_minor": 1001,
    "request_fingerprint": b"",
    "created_at": "2026-11-30T12:00:00Z",
    "hash": b"",
    "debit_account": "cash",
    "credit_account": "wallets",
}
OUT = {"debit_account": "wallets", "credit_account": "cash"}
MOVEMENT_RULES: dict[str, tuple[dict[str, Any], ...]] = {
    "wallet_transactions_seq_positive": ({"seq": 0}, {"seq": -1}),
    "wallet_transactions_created_at_finite": ({"created_at": "infinity"}, {"created_at": "-infinity"}),
    "wallet_transactions_idempotency_key_length": ({"idempotency_key": ""}, {"idempotency_key": "k" * 261}),
    "wallet_transactions_type_and_sign": (
        {"type": "gift"},
        {"amount_minor": 0},
        {"amount_minor": -1, **OUT},
        {"type": "payment"},
        {"type": "payment", "amount_minor": 0, **OUT},
        {"type": "refund", "amount_minor": -1, **OUT},
        {"type": "adjustment", "amount_minor": 0},
        {"type": "opening", "amount_minor": 0},
    ),
    "wallet_transactions_refund_names_payment": (
        {"type": "refund"},
        {"refund_of": "own"},
        {"type": "payment", "amount_minor": -1, "refund_of": "own", **OUT},
    ),
    "wallet_transactions_adjustment_explained": (
        {"type": "adjustment", "reason": "a test"},
        {"type": "adjustment", "admin_id": uuid4()},
        {"type": "adjustment", "admin_id": uuid4(), "reason": " \t"},
    ),
    "wallet_transactions_hold_leads_to_payment": ({"hold_id": uuid4()},),
    "wallet_transactions_entry_follows_sign": (
        {"debit_account": "wallets", "credit_account": "cash"},
        {"debit_account": "wallets", "credit_account": "wallets"},
        {"debit_account": "cash", "credit_account": "sales"},
        {"debit_account": None},
        {"credit_account": None},
        {"type": "payment", "amount_minor": -1, "debit_account": "cash", "credit_account": "wallets"},
        {"type": "payment", "amount_minor": -1, "debit_account": "wallets", "credit_account": "wallets"},
        {"type": "payment", "amount_minor": -1, "debit_account": "wallets", "credit_account": None},
    ),
}


@pytest.fixture
def owner(app: Flask, people: People, database: Database) -> psycopg.Connection[Any]:
    """A superuser in km's schema. The setting test.wallet has the id of a wallet with 1,000 minor units."""
    wallet_id = people.wallet(people.make(km="member"), "km", balance_minor=1000)
    connection = database.as_superuser()
    connection.execute("SET search_path TO km_schema")
    connection.execute("SELECT set_config('test.wallet', %s, false)", (str(wallet_id),))
    return connection


def broken_rule(owner: psycopg.Connection[Any], statement: str, parameters: dict[str, Any]) -> str | None:
    with owner.transaction(force_rollback=True):
        try:
            owner.execute(statement.encode(), parameters)
        except psycopg.errors.CheckViolation as error:
            return error.diag.constraint_name
    return None


@pytest.mark.both_servers
def test_every_rule_of_a_wallet_is_refused_by_its_name(owner: psycopg.Connection[Any]) -> None:
    update = "UPDATE wallets SET {} WHERE id = current_setting('test.wallet')::uuid"
    for rule, attacks in WALLET_RULES.items():
        for attack in attacks:
            assert broken_rule(owner, update.format(attack), {}) == rule, attack
    for right in (
        "credit_limit_minor = 5, balance_minor = -5, uses_credit = true",
        "held_minor = 1000",
        "status = 'frozen'",
        "status = 'closed', balance_minor = 0",
        f"balance_minor = {MAX_MINOR}",
    ):
        assert broken_rule(owner, update.format(right), {}) is None, right
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        owner.execute(update.format(f"balance_minor = {MAX_MINOR}, credit_limit_minor = 1").encode())


@pytest.mark.both_servers
def test_every_rule_of_a_movement_is_refused_by_its_name(owner: psycopg.Connection[Any]) -> None:
    for rule, attacks in MOVEMENT_RULES.items():
        for attack in attacks:
            assert _inserted(owner, attack) == rule, attack
    rights: tuple[dict[str, Any], ...] = (
        {},
        {"debit_account": None, "credit_account": None},  # Of before revision 0009: restores write such rows.
        {"type": "payment", "amount_minor": -1, "debit_account": "wallets", "credit_account": "sales"},
        {"type": "refund", "refund_of": "own", "debit_account": "sales"},
        {"type": "adjustment", "admin_id": uuid4(), "reason": "a test", "debit_account": "adjustments"},
        {"type": "opening", "amount_minor": -1, "debit_account": "wallets", "credit_account": "opening_balances"},
    )
    for right in rights:
        assert _inserted(owner, right) is None, right


def _inserted(owner: psycopg.Connection[Any], changed: dict[str, Any]) -> str | None:
    row = {"id": uuid4(), "idempotency_key": uuid4().hex, **DEPOSIT, **changed}
    if row.get("refund_of") == "own":
        row["refund_of"] = row["id"]
    columns = ", ".join(row)
    values = ", ".join(f"%({name})s" for name in row)
    insert = f"INSERT INTO wallet_transactions (wallet_id, {columns})"
    return broken_rule(owner, f"{insert} VALUES (current_setting('test.wallet')::uuid, {values})", row)
