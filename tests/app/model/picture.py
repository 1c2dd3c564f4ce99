"""The content of a tenant's database, read with plain SQL, in the terms of the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from tests.app.model.wallet import Hold, Movement, Order, Wallet

Rows = list[dict[str, Any]]
WALLETS = """
    SELECT id::text, currency, credit_limit_minor AS "limit", balance_minor AS balance, status, version, last_seq,
        greatest(balance_minor, 0) AS deposit_balance_minor, greatest(-balance_minor, 0) AS credit_used_minor,
        uses_credit, held_minor, encode(last_hash, 'hex') AS last_hash
    FROM wallets ORDER BY id"""
MOVEMENTS = """
    SELECT t.id::text, t.wallet_id::text, t.seq, t.type, t.amount_minor, t.balance_after_minor, t.order_id,
        p.seq AS paid, t.hold_id::text, encode(t.hash, 'hex') AS hash,
        (SELECT json_agg(json_build_array(e.entry_no, e.debit_account, e.credit_account, e.amount_minor))
            FROM movement_entries e WHERE e.transaction_id = t.id) AS entries
    FROM wallet_transactions t LEFT JOIN wallet_transactions p ON p.id = t.refund_of ORDER BY t.wallet_id, t.seq"""
HOLDS = """
    SELECT id::text, wallet_id::text, amount_minor, captured_minor, order_id, status AS status_as_noted,
        CASE WHEN status = 'active' AND expires_at <= clock_timestamp() THEN 'expired' ELSE status END AS status
    FROM holds ORDER BY wallet_id, created_at"""
ORDERS = """
    SELECT o.id::text, o.wallet_id::text, o.total_minor, o.status, p.seq AS payment, r.seq AS refund
    FROM orders o JOIN wallet_transactions p ON p.id = o.payment_id
    LEFT JOIN wallet_transactions r ON r.id = o.refund_id ORDER BY o.id"""
PAID = "SELECT order_id, hold_id::text FROM order_payments ORDER BY order_id"
POLICIES = "SELECT currency, default_limit_minor, max_limit_minor FROM credit_policies ORDER BY currency"
TRIAL_BALANCE = """
    SELECT currency, account, part, debit_minor::bigint, credit_minor::bigint FROM trial_balance
    WHERE debit_minor <> 0 OR credit_minor <> 0 ORDER BY currency, account, part"""
QUERIES = (WALLETS, MOVEMENTS, HOLDS, ORDERS, PAID, POLICIES, TRIAL_BALANCE)


@dataclass
class Picture:
    """`rows` is everything, to detect changes; the other fields interpret it."""

    rows: list[Rows]
    wallets: dict[str, Wallet]
    orders: list[Order]
    paid: dict[str, tuple[str, int] | None]
    policies: dict[str, tuple[int, int | None]]
    trial_balance: dict[tuple[str, str, str | None], tuple[int, int]]
    entries: dict[str, list[list[tuple[str, str, int]]]]  # of each movement, by wallet
    splits: dict[str, tuple[int, int]]  # deposit and credit used, by wallet
    ids: dict[tuple[str, int], str]  # of movements, by wallet and number
    numbers: dict[str, int]  # of movements, by their ids
    holds: dict[str, list[str]]  # ids, by wallet


def read_picture(login: psycopg.Connection[dict[str, Any]], orders: Sequence[str]) -> Picture:
    """`orders` are the ids of orders, as placed. Relations between rows are checked meanwhile."""
    rows = [login.execute(query.encode(), prepare=True).fetchall() for query in QUERIES]
    wallets, movements, holds, placed, paid, policies, trial_balance = rows
    holds_of = {row["id"]: [hold for hold in holds if hold["wallet_id"] == row["id"]] for row in wallets}
    places = {hold["id"]: (wallet, n) for wallet, found in holds_of.items() for n, hold in enumerate(found, 1)}
    names = {order: f"order {n}" for n, order in enumerate(orders, 1)}
    picture = Picture(
        rows=rows,
        wallets={row["id"]: _wallet(row, movements, holds_of[row["id"]], names, places) for row in wallets},
        orders=[_order(row) for row in sorted(placed, key=lambda row: orders.index(row["id"]))],
        paid={names.get(row["order_id"], row["order_id"]): places.get(row["hold_id"]) for row in paid},
        policies={row["currency"]: (row["default_limit_minor"], row["max_limit_minor"]) for row in policies},
        trial_balance={
            (row["currency"], row["account"], row["part"]): (row["debit_minor"], row["credit_minor"])
            for row in trial_balance
        },
        entries={row["id"]: [] for row in wallets},
        splits={row["id"]: (row["deposit_balance_minor"], row["credit_used_minor"]) for row in wallets},
        ids={(row["wallet_id"], row["seq"]): row["id"] for row in movements},
        numbers={row["id"]: row["seq"] for row in movements},
        holds={wallet: [hold["id"] for hold in found] for wallet, found in holds_of.items()},
    )
    for row in movements:
        numbered = [number for number, *_ in row["entries"]]
        assert numbered == list(range(1, len(numbered) + 1))
        picture.entries[row["wallet_id"]].append([tuple(entry) for _, *entry in row["entries"]])
    return picture


def _wallet(
    row: dict[str, Any], movements: Rows, holds: Rows, names: dict[str, str], places: dict[str, tuple[str, int]]
) -> Wallet:
    own = [movement for movement in movements if movement["wallet_id"] == row["id"]]
    assert row["last_seq"] == len(own)
    assert row["last_hash"] == own[-1]["hash"] if own else True
    noted = sum(hold["amount_minor"] - hold["captured_minor"] for hold in holds if hold["status_as_noted"] == "active")
    assert row["held_minor"] == noted
    return Wallet(
        **{name: row[name] for name in ("currency", "limit", "balance", "status", "version")},
        movements=[
            Movement(
                movement["seq"],
                movement["type"],
                movement["amount_minor"],
                movement["balance_after_minor"],
                names.get(movement["order_id"], movement["order_id"]),
                movement["paid"],
                movement["hold_id"] and places[movement["hold_id"]][1],
            )
            for movement in own
        ],
        holds=[Hold(hold["amount_minor"], hold["order_id"], hold["captured_minor"], hold["status"]) for hold in holds],
    )


def _order(row: dict[str, Any]) -> Order:
    return Order(row["wallet_id"], row["total_minor"], row["payment"], row["status"], row["refund"])
