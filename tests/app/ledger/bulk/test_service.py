"""The laws of money hold for many movements at once: all or nothing or each on its own, orders paid once, and no two
requests that block each other.
"""

from concurrent.futures import ThreadPoolExecutor
from random import Random
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from flask import Flask
from psycopg.rows import TupleRow

from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of
from tests.app.ledger.bulk.conftest import Desk, body_of, in_threads, item

TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])


# --- all or nothing ------------------------------------------------------------------------------------------------


@TENANTS
def test_one_refusal_leaves_nothing_posted_and_is_named_by_its_place(app: Flask, slug: str) -> None:
    desk = Desk(app, slug)
    rich, poor = desk.wallet(1_000), desk.wallet(100)
    items = [item(rich, "payment", "1.00"), item(poor, "deposit", "0.50"), item(poor, "payment", "1.51")]
    problem = problem_of(desk.send([*items, item(rich, "deposit", "9.00")]), 409, "insufficient_funds")
    assert (problem["item"], problem["available"], problem["shortfall"]) == (2, "1.50", "0.01")
    assert [desk.history(wallet_id) for wallet_id in (rich, poor)] == [[("deposit", "10.00")], [("deposit", "1.00")]]


def test_a_later_item_spends_what_an_earlier_one_brought_and_not_the_other_way_round(desk: Desk) -> None:
    wallet_id = desk.wallet()
    items = [item(wallet_id, "deposit", "1.00"), item(wallet_id, "payment", "1.00")]
    assert problem_of(desk.send(items[::-1]), 409, "insufficient_funds")["item"] == 0
    desk.post(items)
    assert desk.balance(wallet_id) == "0.00"


def test_what_a_bigint_cannot_hold_refuses_the_whole_and_names_the_item(desk: Desk) -> None:
    wallet_id, most = desk.wallet(), "92233720368547758.07"
    problem = problem_of(desk.send([item(wallet_id, "deposit", most)] * 2), 422, "amount_out_of_range")
    assert problem["item"] == 1
    answer = desk.each([item(wallet_id, "deposit", most), item(wallet_id, "deposit", "0.01")])
    assert (answer[0]["status"], answer[1]["problem"]["code"]) == (201, "amount_out_of_range")
    desk.post([item(wallet_id, "adjustment", f"-{most}")])


# --- each on its own -----------------------------------------------------------------------------------------------


def test_a_refused_item_has_the_problem_of_the_single_route_and_the_others_stand(desk: Desk) -> None:
    wallet_id = desk.wallet(1_000)
    answer = desk.each(
        [item(wallet_id, "payment", "6.00"), item(wallet_id, "payment", "5.00"), item(wallet_id, "payment", "4.00")]
    )
    assert [(shown["index"], shown["status"]) for shown in answer] == [(0, 201), (1, 409), (2, 201)]
    assert "transaction" not in answer[1]
    desk.post([item(wallet_id, "deposit", "4.00")])
    single = desk.one(wallet_id, "payments", amount="5.00")
    assert answer[1]["problem"] == body_of(single, 409)
    assert [shown["transaction"]["balanceAfter"] for shown in (answer[0], answer[2])] == ["4.00", "0.00"]


@TENANTS
def test_every_wallet_that_refuses_is_named_in_its_place(app: Flask, slug: str) -> None:
    desk = Desk(app, slug)
    frozen, closed, foreign = desk.wallet(500), desk.wallet(), Desk(app, {"eur": "km", "km": "eur"}[slug]).wallet(900)
    desk.configure(frozen, status="frozen")
    desk.configure(closed, status="closed")
    cases = [
        (item(frozen, "payment", "1.00"), "wallet_frozen"),
        (item(frozen, "deposit", "1.00"), None),
        (item(closed, "deposit", "1.00"), "wallet_closed"),
        (item(foreign, "payment", "1.00"), "wallet_not_found"),
        (item(uuid4(), "deposit", "1.001"), "wallet_not_found"),
        (item(frozen, "adjustment", "-1.00"), None),
    ]
    answer = desk.each([sent for sent, _ in cases])
    assert [shown.get("problem", {}).get("code") for shown in answer] == [code for _, code in cases]
    assert [shown["status"] for shown in answer] == [409, 201, 409, 404, 404, 201]
    for shown, (sent, code) in zip(answer, cases, strict=True):
        if code:
            refused = problem_of(desk.send([cases[1][0], sent]), shown["status"], code)
            assert refused.pop("item") == 1
            assert refused == shown["problem"]
    assert desk.balance(frozen) == "5.00"


def test_a_hold_blocks_funds_and_one_that_is_over_does_not(desk: Desk, database: Database) -> None:
    wallet_id = desk.wallet(1_000)
    superuser = database.as_superuser()
    superuser.execute("SET search_path = eur_schema")
    superuser.execute("SELECT hold_authorise_v1(%s, 700, 'k', NULL, NULL, NULL)", (wallet_id,))
    items = [item(wallet_id, "payment", "3.01"), item(wallet_id, "payment", "3.00")]
    assert [shown["status"] for shown in desk.each(items)] == [409, 201]
    superuser.execute(
        "UPDATE holds SET expires_at = clock_timestamp() - interval '1 second' WHERE wallet_id = %s", (wallet_id,)
    )
    items = [item(wallet_id, "payment", "7.01"), item(wallet_id, "payment", "7.00")]
    assert [shown["status"] for shown in desk.each(items)] == [409, 201]
    assert superuser.execute("SELECT held_minor FROM wallets WHERE id = %s", (wallet_id,)).fetchone() == (0,)


# --- an order is paid once -----------------------------------------------------------------------------------------


def test_an_order_is_paid_once_within_a_request_and_after_it(desk: Desk) -> None:
    first, second, order = desk.wallet(500), desk.wallet(500), uuid4().hex
    twice = [item(wallet_id, "payment", "1.00", orderId=order) for wallet_id in (first, second)]
    assert problem_of(desk.send(twice), 409, "order_already_paid")["item"] in (0, 1)
    assert sorted(shown["status"] for shown in desk.each(twice)) == [201, 409]
    for wallet_id in (first, second):
        problem_of(desk.one(wallet_id, "payments", amount="1.00", orderId=order), 409, "order_already_paid")
        again = item(wallet_id, "payment", "1.00", orderId=order)
        assert problem_of(desk.send([again]), 409, "order_already_paid")["item"] == 0


def test_a_refused_payment_has_not_paid_its_order(desk: Desk) -> None:
    wallet_id, order = desk.wallet(150), uuid4().hex
    answer = desk.each([item(wallet_id, "payment", amount, orderId=order) for amount in ("1.51", "1.00", "0.01")])
    assert [shown["status"] for shown in answer] == [201 if n == 1 else 409 for n in range(3)]
    assert answer[2]["problem"]["code"] == "order_already_paid"


def wait_for_lock(superuser: psycopg.Connection[TupleRow]) -> None:
    """Until a bulk request waits for a lock; fails after five seconds."""
    deadline = monotonic() + 5
    query = (
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%wallet\\_post\\_many%'"
        " AND datname = current_database()"
    )
    while not superuser.execute(query).fetchone():
        assert monotonic() < deadline, "no bulk request waits for a lock"
        sleep(0.01)


@pytest.mark.parametrize("atomic", [True, False])
def test_an_order_that_is_paid_elsewhere_in_that_very_moment_is_refused_by_its_item(
    desk: Desk, database: Database, atomic: bool
) -> None:
    """The other payment has written the order and is not committed when this request comes to it."""
    here, elsewhere, order = desk.wallet(500), desk.wallet(500), uuid4().hex
    items = [item(here, "payment", "1.00"), item(here, "payment", "1.00", orderId=order)]
    other, superuser = database.as_tenant("eur"), database.as_superuser()
    with ThreadPoolExecutor(1) as pool:
        with other.transaction():
            other.execute(
                "SELECT wallet_post_v2(%s, 'payment', 100, 'k', NULL, %s, NULL, NULL, NULL, NULL)", (elsewhere, order)
            )
            waiting = pool.submit(desk.send, items, atomic=atomic)
            wait_for_lock(superuser)
        answer = waiting.result(5)
    if atomic:
        assert problem_of(answer, 409, "order_already_paid")["item"] == 1
        assert desk.balance(here) == "5.00"
    else:
        assert [shown["status"] for shown in body_of(answer, 200)["items"]] == [201, 409]
        assert desk.balance(here) == "4.00"


def test_bulk_and_single_payments_of_one_order_at_the_same_moment_pay_it_once(desk: Desk, database: Database) -> None:
    wallets, orders = desk.wallets(8, 10_000), [uuid4().hex for _ in range(10)]

    def pay(number: int) -> None:
        mine = orders if number % 2 else orders[::-1]
        if number < 6:
            desk.each([item(wallets[number], "payment", "1.00", orderId=order) for order in mine])
            return
        for order in mine:
            desk.one(wallets[number], "payments", amount="1.00", orderId=order)

    in_threads(8, pay)
    paid = database.as_superuser().execute(
        "SELECT order_id, count(*) FROM eur_schema.wallet_transactions"
        " WHERE order_id = ANY(%s) AND type = 'payment' GROUP BY order_id",
        (orders,),
    )
    assert dict(paid.fetchall()) == dict.fromkeys(orders, 1)


# --- at the same moment --------------------------------------------------------------------------------------------


def test_the_same_request_sent_at_the_same_moment_posts_once(desk: Desk) -> None:
    wallets, key = desk.wallets(5), uuid4().hex
    items = [item(wallet_id, "deposit", "1.00") for wallet_id in (*wallets, *wallets[::-1])]
    answers = in_threads(8, lambda _: desk.send(items, key))
    assert sorted("Idempotent-Replayed" in answer.headers for answer in answers) == [False] + [True] * 7
    ids = [[shown["transaction"]["id"] for shown in body_of(answer, 201)["items"]] for answer in answers]
    assert all(found == ids[0] for found in ids)
    assert {desk.balance(wallet_id) for wallet_id in wallets} == {"2.00"}


@TENANTS
def test_overlapping_requests_in_any_order_do_not_block_each_other_and_lose_nothing(app: Flask, slug: str) -> None:
    desk = Desk(app, slug)
    wallets = desk.wallets(12, 10_000)

    def move(number: int) -> int:
        random, effect = Random(number), 0
        for turn in range(12):
            if number % 4 == 0:
                answers = [desk.one(random.choice(wallets), "payments", amount="0.03")]
                effect -= 3
            else:
                order = random.sample(wallets, 10)
                types = [random.choice(["deposit", "payment"]) for _ in order]
                items = [item(wallet_id, type_, "0.05") for wallet_id, type_ in zip(order, types, strict=True)]
                answers = [desk.send(items, atomic=bool(turn % 2))]
                effect += sum({"deposit": 5, "payment": -5}[type_] for type_ in types)
            assert {answer.status_code for answer in answers} <= {200, 201}, answers[0].text
        return effect

    effects = in_threads(12, move)
    total = sum(int(desk.balance(wallet_id).replace(".", "")) for wallet_id in wallets)
    assert total == 12 * 10_000 + sum(effects)


def test_results_are_in_the_order_of_items_although_wallets_are_locked_in_the_order_of_ids(desk: Desk) -> None:
    wallets = desk.wallets(20)
    Random(1).shuffle(wallets)
    items = [item(wallet_id, "deposit", f"{number + 1}.00") for number, wallet_id in enumerate(wallets)]
    for answer in (desk.post(items)["items"], desk.each(items)):
        told: list[dict[str, Any]] = [shown["transaction"] for shown in answer]
        assert [t["walletId"] for t in told] == [str(wallet_id) for wallet_id in wallets]
        assert [t["amount"] for t in told] == [sent["amount"] for sent in items]


def test_wallets_are_locked_in_the_order_of_their_ids_so_that_nobody_waits_in_a_circle(
    desk: Desk, database: Database
) -> None:
    """Who waits for the first of them holds none of the others."""
    wallets = sorted(desk.wallets(10), reverse=True)
    holder, superuser = database.as_superuser(), database.as_superuser()
    query = "SELECT id FROM eur_schema.wallets WHERE id = ANY(%s) FOR NO KEY UPDATE"
    with ThreadPoolExecutor(1) as pool:
        with holder.transaction():
            holder.execute(query, ([wallets[-1]],))
            waiting = pool.submit(desk.post, [item(wallet_id, "deposit", "1.00") for wallet_id in wallets])
            wait_for_lock(superuser)
            free = superuser.execute(f"{query} SKIP LOCKED".encode(), (wallets,)).fetchall()
        assert sorted((wallet_id for (wallet_id,) in free), reverse=True) == wallets[:-1]
        waiting.result(5)


def test_orders_are_claimed_in_their_own_order_so_that_nobody_waits_in_a_circle(desk: Desk, database: Database) -> None:
    """Who waits for the first of them has claimed none of the others."""
    here, elsewhere, orders = desk.wallet(500), desk.wallet(500), sorted(uuid4().hex for _ in range(5))
    holder, superuser = database.as_tenant("eur"), database.as_superuser()
    pay = "SELECT wallet_post_v2(%s, 'payment', 100, %s, NULL, %s, NULL, NULL, NULL, NULL)"
    with ThreadPoolExecutor(1) as pool:
        with holder.transaction(force_rollback=True):
            holder.execute(pay, (elsewhere, "k", orders[0]))
            items = [item(here, "payment", "1.00", orderId=order) for order in reversed(orders)]
            waiting = pool.submit(desk.post, items)
            wait_for_lock(superuser)
            holder.execute("SET LOCAL lock_timeout = '2s'")
            for number, order in enumerate(orders[1:]):
                holder.execute(pay, (elsewhere, f"k{number}", order))
        waiting.result(5)
    assert desk.balance(here) == "0.00"


def test_an_amount_that_no_bigint_holds_is_one_items_refusal(desk: Desk) -> None:
    """It is the sum of balance and limit that is too much; the others stand, and all or nothing names the item."""
    rich, poor = desk.wallet(0, credit_limit_minor=100), desk.wallet(0)
    items = [item(poor, "deposit", "1.00"), item(rich, "deposit", "92233720368547758.07")]
    answer = desk.each(items)
    assert [shown["status"] for shown in answer] == [201, 422]
    assert answer[1]["problem"]["code"] == "amount_out_of_range"
    assert problem_of(desk.send(items), 422, "amount_out_of_range")["item"] == 1
