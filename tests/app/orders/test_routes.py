"""Orders over HTTP: order and payment commit together, and a cancelled order is refunded once."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import monotonic, sleep
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from flask import Flask
from psycopg.rows import TupleRow
from werkzeug.test import TestResponse

from tenant_schemas.testing.plugin import Database
from tests.factories.api import ID_OF_NOTHING, Api
from tests.factories.catalogue import Catalogue
from tests.factories.people import People, Person

TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])
REFUSED = psycopg.errors.InsufficientPrivilege
Items = list[tuple[UUID, int]]


class Buyer:
    """A member with a wallet, buying in one tenant."""

    def __init__(self, app: Flask, slug: str, balance_minor: int) -> None:
        people = People(app)
        self.app, self.slug, self.api = app, slug, Api(app)
        self.person: Person = people.make(**{slug: "member"})
        self.wallet_id: UUID = people.wallet(self.person, slug, balance_minor=balance_minor)

    def send(self, items: Any, key: str | None = None) -> TestResponse:
        """With a client of its own, so that threads can call it."""
        body = {"items": [{"productId": str(id_), "quantity": quantity} for id_, quantity in items]}
        sent = {"data": json.dumps(body), "content_type": "application/json"}  # Python's, for numbers of any length.
        return Api(self.app).post("/api/orders", self.person, self.slug, key=key, **sent)

    def order(self, items: Any, status: int = 201, key: str | None = None) -> dict[str, Any]:
        return body_of(self.send(items, key), status)

    def cancel(self, order: dict[str, Any], status: int = 200, key: str | None = None) -> dict[str, Any]:
        answer = Api(self.app).post(f"/api/orders/{order['id']}/cancel", self.person, self.slug, key=key)
        return body_of(answer, status)

    def show(self, order: dict[str, Any], status: int = 200) -> dict[str, Any]:
        return body_of(self.api.get(f"/api/orders/{order['id']}", self.person, self.slug), status)

    def configure(self, **body: str) -> None:
        admin = People(self.app).make(**{self.slug: "admin"})
        path = f"/api/admin/wallets/{self.wallet_id}"
        seen = self.api.get(path, admin, self.slug).headers["ETag"]
        body_of(self.api.patch(path, admin, self.slug, if_match=seen, json=body), 200)

    def balance(self) -> str:
        shown: Any = self.api.get("/api/wallet", self.person, self.slug).json
        return str(shown["balance"])

    def movements(self) -> list[tuple[str, str, str | None]]:
        """The movements after the deposit, oldest first: type, amount, order."""
        page: Any = self.api.get("/api/wallet/transactions", self.person, self.slug).json
        found = [(item["type"], item["amount"], item["orderId"]) for item in page["items"]]
        return [movement for movement in reversed(found) if movement[0] != "deposit"]

    def orders(self) -> list[dict[str, Any]]:
        page: Any = self.api.get("/api/orders", self.person, self.slug).json
        return list(page["items"])


def body_of(answer: TestResponse, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    shown: dict[str, Any] = answer.json  # type: ignore[assignment]
    return shown


def in_threads(count: int, act: Callable[[int], Any]) -> list[Any]:
    """Start all at the same moment."""
    start = Barrier(count)

    def run(number: int) -> Any:
        start.wait()
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@pytest.fixture
def catalogue(database: Database) -> Catalogue:
    return Catalogue(database)


@pytest.fixture
def buyer(app: Flask) -> Buyer:
    return Buyer(app, "eur", 10_000)


@pytest.fixture
def thing(catalogue: Catalogue) -> UUID:
    """A product of 7.00 in either currency."""
    return catalogue.product(EUR="7.00", BAM="7.00")[1]


@pytest.fixture(scope="module", autouse=True)
def sound_afterwards(app: Flask) -> Iterator[None]:
    """After these tests the ledgers of both tenants are sound."""
    yield
    said = app.test_cli_runner().invoke(args=["wallets", "audit"])
    assert said.exit_code == 0, said.output


@pytest.fixture(autouse=True)
def closed_afterwards(database: Database) -> Iterator[None]:
    """Close the connections of a test; there are many tests here."""
    yield
    database.close()


# Placing.


@pytest.mark.parametrize(("slug", "currency", "price"), [("eur", "EUR", "2.50"), ("km", "BAM", "4.90")])
def test_an_order_is_paid_at_the_catalogues_prices_in_the_tenants_currency(
    app: Flask, catalogue: Catalogue, slug: str, currency: str, price: str
) -> None:
    buyer = Buyer(app, slug, 10_000)
    first_sku, first = catalogue.product(EUR="2.50", BAM="4.90", name="First")
    _, second = catalogue.product(EUR="0.01", BAM="0.01")
    order = buyer.order([(first, 3), (second, 1)])
    total = {"2.50": "7.51", "4.90": "14.71"}[price]
    left = {"2.50": "92.49", "4.90": "85.29"}[price]
    assert (order["status"], order["total"], order["currency"], order["balanceAfter"]) == (
        "paid",
        total,
        currency,
        left,
    )
    assert (order["tenantId"], order["userId"]) == (slug, str(buyer.person.user_id))
    assert order["items"][0] == {
        "itemNo": 1,
        "productId": str(first),
        "sku": first_sku,
        "name": "First",
        "quantity": 3,
        "unitPrice": price,
        "lineTotal": {"2.50": "7.50", "4.90": "14.70"}[price],
    }
    assert buyer.movements() == [("payment", f"-{total}", order["id"])]
    paid: Any = buyer.api.get(f"/api/wallet/transactions/{order['paymentId']}", buyer.person, slug).json
    assert (paid["orderId"], paid["balanceAfter"], paid["createdAt"]) == (order["id"], left, order["createdAt"])


def test_an_order_shown_later_is_the_order_that_was_placed(buyer: Buyer, thing: UUID) -> None:
    placed = buyer.order([(thing, 2), (thing, 1)])
    del placed["balanceAfter"]
    assert buyer.show(placed) == placed
    assert buyer.orders() == [placed]


@TENANTS
def test_not_enough_funds_means_no_order_at_all(app: Flask, thing: UUID, slug: str) -> None:
    buyer = Buyer(app, slug, 2_099)
    refused = buyer.order([(thing, 3)], 409)
    assert (refused["code"], refused["required"], refused["shortfall"]) == ("insufficient_funds", "21.00", "0.01")
    assert (buyer.orders(), buyer.movements(), buyer.balance()) == ([], [], "20.99")


def test_prices_and_names_are_frozen_into_the_order(buyer: Buyer, catalogue: Catalogue) -> None:
    sku, product = catalogue.product(EUR="2.00", name="Before")
    placed = buyer.order([(product, 2)])
    catalogue.product(sku, EUR="3.00", name="After")
    shown = buyer.show(placed)["items"][0]
    assert (shown["name"], shown["unitPrice"], shown["lineTotal"]) == ("Before", "2.00", "4.00")
    new = buyer.order([(product, 2)])
    assert (new["items"][0]["name"], new["total"]) == ("After", "6.00")


UNSOLD: dict[str, tuple[str, dict[str, str] | None, str, int, str | None]] = {
    "withdrawn": ("eur", {"EUR": "1.00", "status": "withdrawn"}, "product_withdrawn", 409, None),
    "no price in BAM": ("km", {"EUR": "1.00"}, "product_without_price", 409, "BAM"),
    "no price in EUR": ("eur", {"BAM": "1.00", "JPY": "100"}, "product_without_price", 409, "EUR"),
    "unknown": ("km", None, "product_not_found", 404, None),
}


@pytest.mark.parametrize("case", UNSOLD)
def test_a_product_that_can_not_be_sold_is_named_and_nothing_is_ordered(
    app: Flask, catalogue: Catalogue, thing: UUID, case: str
) -> None:
    slug, told, code, status, currency = UNSOLD[case]
    buyer = Buyer(app, slug, 10_000)
    product = catalogue.product(**told)[1] if told else uuid4()
    refused = buyer.order([(thing, 1), (product, 1), (thing, 1)], status)
    assert (refused["code"], refused["productId"], refused.get("currency")) == (code, str(product), currency)
    assert (buyer.orders(), buyer.movements()) == ([], [])


def test_an_order_needs_an_item_and_may_not_have_too_many(buyer: Buyer, thing: UUID) -> None:
    assert buyer.order([], 422)["code"] == "order_empty"
    refused = buyer.order([(thing, 1)] * 101, 422)
    assert (refused["code"], refused["limit"]) == ("too_many_items", 100)
    assert buyer.orders() == []
    rich = Buyer(buyer.app, "eur", 70_000)
    assert len(rich.order([(thing, 1)] * 100)["items"]) == 100
    assert rich.balance() == "0.00"


@pytest.mark.parametrize("quantity", [0, -1, 1001, 2**40, 10**400], ids=lambda quantity: str(quantity)[:9])
def test_a_quantity_has_its_limits(buyer: Buyer, thing: UUID, quantity: int) -> None:
    refused = buyer.order([(thing, quantity)], 422)
    assert (refused["code"], refused["productId"], refused["limit"]) == ("quantity_out_of_range", str(thing), 1000)
    assert buyer.orders() == []


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({}, "items", "required"),
        ({"items": None}, "items", "required"),
        ({"items": {}}, "items", "not_a_list"),
        ({"items": [None]}, "items.0", "not_an_object"),
        ({"items": [{}]}, "items.0.productId", "required"),
        ({"items": [{"productId": "x", "quantity": 1}]}, "items.0.productId", "not_a_uuid"),
        ({"items": [{"productId": str(uuid4()), "quantity": "1"}]}, "items.0.quantity", "not_an_integer"),
        ({"items": [{"productId": str(uuid4()), "quantity": 1.0}]}, "items.0.quantity", "not_an_integer"),
        ({"items": [{"productId": str(uuid4()), "quantity": True}]}, "items.0.quantity", "not_an_integer"),
        ({"items": [{"productId": str(uuid4()), "quantity": 1, "price": "0.01"}]}, "items.0.price", "unknown_field"),
    ],
)
def test_what_is_no_order_is_refused_by_its_place(buyer: Buyer, body: Any, field: str, code: str) -> None:
    refused = body_of(buyer.api.post("/api/orders", buyer.person, "eur", json=body), 422)
    assert (field, code) in {(fault["field"], fault["code"]) for fault in refused["errors"]}


@pytest.mark.parametrize("path", ["/api/orders", f"/api/orders/{ID_OF_NOTHING}/cancel"])
def test_ordering_and_cancelling_need_a_key(buyer: Buyer, thing: UUID, path: str) -> None:
    body = {"items": [{"productId": str(thing), "quantity": 1}]}
    refused = body_of(buyer.api.send("POST", path, buyer.person, "eur", json=body), 400)
    assert refused["code"] == "idempotency_key_required"


def test_a_total_beyond_bigint_is_refused_by_name(buyer: Buyer, catalogue: Catalogue) -> None:
    _, dear = catalogue.product(EUR="92233720368547758.07")
    for items in ([(dear, 2)], [(dear, 1), (dear, 1)]):
        assert buyer.order(items, 422)["code"] == "amount_out_of_range"


def test_a_frozen_wallet_orders_nothing_and_a_new_one_has_no_funds(buyer: Buyer, thing: UUID) -> None:
    buyer.configure(status="frozen")
    assert buyer.order([(thing, 1)], 409)["code"] == "wallet_frozen"
    buyer.person = People(buyer.app).make(eur="member")
    assert buyer.order([(thing, 1)], 409)["code"] == "insufficient_funds"


def test_what_is_held_can_not_be_ordered_with(buyer: Buyer, thing: UUID) -> None:
    buyer.api.post("/api/wallet/holds", buyer.person, "eur", json={"amount": "93.01"})
    assert buyer.order([(thing, 1)], 409)["shortfall"] == "0.01"


# Repeating.


def test_a_repeated_request_has_the_first_answer_though_prices_changed_and_the_order_is_cancelled(
    buyer: Buyer, catalogue: Catalogue
) -> None:
    sku, product = catalogue.product(EUR="2.00")
    first = buyer.send([(product, 1)], "k")
    assert "Idempotent-Replayed" not in first.headers
    catalogue.product(sku, EUR="3.00", status="withdrawn")
    buyer.cancel(body_of(first, 201))
    again = buyer.send([(product, 1)], "k")
    assert (again.status_code, again.json, again.headers["Idempotent-Replayed"]) == (201, first.json, "true")
    assert buyer.show(body_of(first, 201))["status"] == "cancelled"
    assert len(buyer.orders()) == 1


def test_a_key_used_for_another_order_is_refused(buyer: Buyer, thing: UUID) -> None:
    buyer.order([(thing, 1)], key="k")
    for items in ([(thing, 2)], [(thing, 1), (thing, 1)], [(uuid4(), 1)], []):
        assert buyer.order(items, 422, key="k")["code"] == "idempotency_key_reused"
    assert len(buyer.orders()) == 1


def test_one_key_serves_one_posting_of_a_wallet_be_it_an_order_a_payment_or_a_cancelling(
    buyer: Buyer, thing: UUID
) -> None:
    payment = {"amount": "7.00"}
    buyer.api.post("/api/wallet/payments", buyer.person, "eur", json=payment, key="paid")
    assert buyer.order([(thing, 1)], 422, key="paid")["code"] == "idempotency_key_reused"
    one, other = buyer.order([(thing, 1)], key="ordered"), buyer.order([(thing, 1)])
    cancelled = buyer.order([(thing, 1)])
    buyer.cancel(cancelled)
    refused = buyer.api.post("/api/wallet/payments", buyer.person, "eur", json=payment, key="ordered")
    assert body_of(refused, 422)["code"] == "idempotency_key_reused"
    for key in ("paid", "ordered"):
        for order in (one, cancelled):
            assert buyer.cancel(order, 422, key=key)["code"] == "idempotency_key_reused"
    buyer.cancel(one, key="cancelled")
    assert buyer.cancel(other, 422, key="cancelled")["code"] == "idempotency_key_reused"
    assert buyer.show(other)["status"] == "paid"


def test_one_key_at_the_same_moment_makes_one_order(buyer: Buyer, thing: UUID) -> None:
    answers = in_threads(16, lambda _: buyer.send([(thing, 1)], "k"))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert sorted("Idempotent-Replayed" in answer.headers for answer in answers) == [False] + [True] * 15
    assert (len(buyer.orders()), buyer.balance()) == (1, "93.00")


# At the same moment, and half-way.


@TENANTS
def test_sixteen_threads_order_until_the_wallet_is_empty(
    app: Flask, thing: UUID, database: Database, slug: str
) -> None:
    buyer = Buyer(app, slug, 30_010)

    def buy(_: int) -> int:
        bought = 0
        while (answer := buyer.send([(thing, 1)])).status_code == 201:
            bought += 1
        assert answer.json["code"] == "insufficient_funds"
        return bought

    assert sum(in_threads(16, buy)) == 42
    assert buyer.balance() == "6.10"
    counts = database.as_superuser().execute(
        f"SELECT count(*), count(DISTINCT o.id), count(DISTINCT t.id), sum(t.amount_minor), sum(i.line_total_minor)"
        f" FROM {slug}_schema.orders o JOIN {slug}_schema.order_items i ON i.order_id = o.id"
        f" JOIN {slug}_schema.wallet_transactions t ON t.id = o.payment_id AND t.order_id = o.id::text"
        " WHERE o.wallet_id = %s",
        (buyer.wallet_id,),
    )  # fmt: skip
    assert counts.fetchone() == (42, 42, 42, -29_400, 29_400)


def wait_for_lock(superuser: psycopg.Connection[TupleRow], other_than: int = 0) -> int:
    """The process that waits for a lock with an order; fails after five seconds."""
    deadline = monotonic() + 5
    query = (
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%order\\_%%\\_v1%%'"
        " AND datname = current_database() AND pid <> %s"
    )
    while monotonic() < deadline:
        if row := superuser.execute(query, (other_than,)).fetchone():
            return int(row[0])
        sleep(0.01)
    raise AssertionError("no order waits for a lock")


@pytest.mark.parametrize("verb", ["place", "cancel"])
def test_who_comes_while_the_first_is_not_done_waits_and_gets_the_first_answer(
    buyer: Buyer, thing: UUID, database: Database, verb: str
) -> None:
    call = (
        f"SELECT (placed).id, replayed FROM order_place_v1('{buyer.person.user_id}', 'EUR', '[[\"{thing}\", 1]]', 'k')"
    )
    if verb == "cancel":
        order = buyer.order([(thing, 1)])
        call = f"SELECT refunded_minor, replayed FROM order_cancel_v1('{buyer.person.user_id}', '{order['id']}', 'k')"
    first, second, superuser = database.as_tenant("eur"), database.as_tenant("eur"), database.as_superuser()
    with ThreadPoolExecutor(1) as pool:
        with first.transaction():
            told = first.execute(call.encode()).fetchone()
            waiting = pool.submit(second.execute, call.encode())
            wait_for_lock(superuser)
        assert told is not None
        assert (told[1], waiting.result(5).fetchone()) == (False, (told[0], True))


def test_a_process_killed_between_payment_and_items_leaves_neither(
    buyer: Buyer, thing: UUID, database: Database
) -> None:
    """The table of items is locked, so the order stops there, after its payment is posted."""
    locker, superuser, tenant = database.as_superuser(), database.as_superuser(), database.as_tenant("eur")
    call = f"SELECT placed FROM order_place_v1('{buyer.person.user_id}', 'EUR', '[[\"{thing}\", 1]]', 'k')"
    with ThreadPoolExecutor(1) as pool, locker.transaction():
        locker.execute("LOCK TABLE eur_schema.order_items")
        placing = pool.submit(tenant.execute, call.encode())
        superuser.execute("SELECT pg_terminate_backend(%s)", (wait_for_lock(superuser),))
        with pytest.raises(psycopg.errors.AdminShutdown):
            placing.result(5)
    assert (buyer.orders(), buyer.movements(), buyer.balance()) == ([], [], "100.00")


def test_an_order_whose_connection_is_killed_is_sent_again_and_placed_once(
    buyer: Buyer, thing: UUID, database: Database
) -> None:
    locker, superuser = database.as_superuser(), database.as_superuser()
    with ThreadPoolExecutor(1) as pool:
        with locker.transaction():
            locker.execute("LOCK TABLE eur_schema.order_items")
            placing = pool.submit(buyer.order, [(thing, 1)])
            killed = wait_for_lock(superuser)
            superuser.execute("SELECT pg_terminate_backend(%s)", (killed,))
            wait_for_lock(superuser, other_than=killed)
        order = placing.result(5)
    assert buyer.movements() == [("payment", "-7.00", order["id"])]
    assert [shown["id"] for shown in buyer.orders()] == [order["id"]]


def test_a_loading_of_prices_waits_for_no_order(buyer: Buyer, catalogue: Catalogue, database: Database) -> None:
    """A running order holds no lock in the shared schema."""
    sku, product = catalogue.product(EUR="2.00")
    tenant = database.as_tenant("eur")
    with tenant.transaction():
        call = f"SELECT placed FROM order_place_v1('{buyer.person.user_id}', 'EUR', '[[\"{product}\", 1]]', 'k')"
        tenant.execute(call.encode())
        locks = database.as_superuser().execute(
            "SELECT count(*) FROM pg_locks WHERE pid = %s AND mode <> 'AccessShareLock'"
            " AND relation IN (SELECT oid FROM pg_class WHERE relnamespace = 'shared'::regnamespace)",
            (tenant.info.backend_pid,),
        )
        assert locks.fetchone() == (0,)
        catalogue.product(sku, EUR="3.00")
    assert buyer.orders()[0]["total"] == "2.00"


# Cancelling.


@TENANTS
def test_cancelling_refunds_what_was_paid_once(app: Flask, thing: UUID, slug: str) -> None:
    buyer = Buyer(app, slug, 10_000)
    order = buyer.order([(thing, 3)])
    cancelled = buyer.cancel(order)
    assert (cancelled["status"], cancelled["refunded"], cancelled["balanceAfter"]) == ("cancelled", "21.00", "100.00")
    assert cancelled["items"] == order["items"]
    buyer.order([(thing, 1)])
    assert buyer.cancel(order) == cancelled
    assert buyer.movements()[:2] == [("payment", "-21.00", order["id"]), ("refund", "21.00", order["id"])]
    assert buyer.balance() == "93.00"
    refund: Any = buyer.api.get(f"/api/wallet/transactions/{cancelled['refundId']}", buyer.person, slug).json
    assert (refund["paymentId"], refund["createdAt"]) == (order["paymentId"], cancelled["cancelledAt"])
    shown = buyer.show(order)
    assert shown == {name: cancelled[name] for name in shown}


def test_a_cancelling_says_whether_it_is_the_first(buyer: Buyer, thing: UUID) -> None:
    order = buyer.order([(thing, 1)])
    path = f"/api/orders/{order['id']}/cancel"
    answers = [buyer.api.post(path, buyer.person, "eur", key=key) for key in ("a", "a", "b")]
    assert ["Idempotent-Replayed" in answer.headers for answer in answers] == [False, True, True]
    assert answers[0].json == answers[1].json == answers[2].json


@pytest.mark.parametrize("same_key", [True, False])
def test_cancelling_at_the_same_moment_refunds_once(buyer: Buyer, thing: UUID, same_key: bool) -> None:
    order = buyer.order([(thing, 1)])
    answers = in_threads(16, lambda number: buyer.cancel(order, key="k" if same_key else f"k{number}"))
    assert all(answer == answers[0] for answer in answers)
    assert buyer.balance() == "100.00"
    assert len(buyer.movements()) == 2


def refund_by_admin(buyer: Buyer, order: dict[str, Any], amount: str) -> TestResponse:
    admin = People(buyer.app).make(**{buyer.slug: "admin"})
    body = {"paymentId": order["paymentId"], "amount": amount}
    return Api(buyer.app).post(f"/api/admin/wallets/{buyer.wallet_id}/refunds", admin, buyer.slug, json=body)


def test_after_a_refund_by_an_admin_cancelling_refunds_the_rest_only(buyer: Buyer, thing: UUID) -> None:
    order = buyer.order([(thing, 3)])
    refund_by_admin(buyer, order, "5.00")
    cancelled = buyer.cancel(order)
    assert (cancelled["refunded"], cancelled["total"], buyer.balance()) == ("16.00", "21.00", "100.00")
    assert body_of(refund_by_admin(buyer, order, "0.01"), 409)["code"] == "refund_exceeds_payment"


def test_an_order_that_was_refunded_in_full_is_cancelled_without_a_refund(buyer: Buyer, thing: UUID) -> None:
    order = buyer.order([(thing, 3)])
    refund_by_admin(buyer, order, "21.00")
    first = buyer.cancel(order)
    assert (first["status"], first["refunded"], first["refundId"]) == ("cancelled", "0.00", None)
    assert first["balanceAfter"] is None
    assert buyer.cancel(order) == first
    assert buyer.balance() == "100.00"


def test_refunds_and_cancellings_at_the_same_moment_never_exceed_the_payment(buyer: Buyer, thing: UUID) -> None:
    order = buyer.order([(thing, 10)])
    admin = People(buyer.app).make(eur="admin")
    path = f"/api/admin/wallets/{buyer.wallet_id}/refunds"
    body = {"paymentId": order["paymentId"], "amount": "9.00"}

    def give_back(number: int) -> int:
        if number % 4 == 0:
            return buyer.cancel(order) and 200
        return Api(buyer.app).post(path, admin, "eur", json=body).status_code

    assert set(in_threads(16, give_back)) <= {200, 201, 409}
    assert buyer.balance() == "100.00"


def test_a_frozen_wallets_order_is_cancelled_and_a_closed_ones_is_not(app: Flask, thing: UUID) -> None:
    buyer = Buyer(app, "eur", 700)
    order = buyer.order([(thing, 1)])
    buyer.configure(status="closed")
    assert buyer.cancel(order, 409)["code"] == "wallet_closed"
    assert buyer.show(order)["status"] == "paid"

    buyer = Buyer(app, "eur", 700)
    order = buyer.order([(thing, 1)])
    buyer.configure(status="frozen")
    assert buyer.cancel(order)["refunded"] == "7.00"


# Whose orders.


def test_nobody_elses_order_is_seen_or_cancelled(app: Flask, buyer: Buyer, thing: UUID) -> None:
    theirs = buyer.order([(thing, 1)])
    other = Buyer(app, "eur", 100)
    assert other.show(theirs, 404) == other.show({"id": uuid4()}, 404)
    assert other.cancel(theirs, 404) == other.cancel({"id": uuid4()}, 404)
    assert other.cancel(theirs, 404)["code"] == "order_not_found"
    assert other.orders() == []
    assert buyer.show(theirs)["status"] == "paid"


def test_an_order_of_one_tenant_does_not_exist_in_the_other(app: Flask, buyer: Buyer, thing: UUID) -> None:
    buyer.person = People(app).make(eur="member", km="member")
    for slug in ("eur", "km"):
        People(app).wallet(buyer.person, slug, balance_minor=1_000)
    order = buyer.order([(thing, 1)])
    buyer.slug = "km"
    assert buyer.show(order, 404)["code"] == "order_not_found"
    assert buyer.cancel(order, 404)["code"] == "order_not_found"
    assert (buyer.orders(), buyer.balance()) == ([], "10.00")


def test_orders_are_listed_newest_first_page_by_page(buyer: Buyer, thing: UUID) -> None:
    made = [buyer.order([(thing, 1)])["id"] for _ in range(5)]
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        query = f"?limit=2&cursor={cursor}" if cursor else "?limit=2"
        page = body_of(buyer.api.get(f"/api/orders{query}", buyer.person, "eur"), 200)
        seen += [item["id"] for item in page["items"]]
        cursor = page["nextCursor"]
    assert seen == made[::-1]


# The wall.


@TENANTS
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO orders SELECT * FROM orders",
        "UPDATE orders SET status = 'cancelled', cancelled_at = now()",
        "UPDATE orders SET total_minor = 1",
        "DELETE FROM orders",
        "TRUNCATE orders CASCADE",
        "INSERT INTO order_items SELECT * FROM order_items",
        "UPDATE order_items SET quantity = 1",
        "DELETE FROM order_items",
        "SELECT order_lines_v1(gen_random_uuid(), 'EUR', '[]')",
        "SELECT order_items_shown_v1(gen_random_uuid())",
        "INSERT INTO shared.products (category_id, sku, name) VALUES (gen_random_uuid(), '', '')",
        "UPDATE shared.products SET status = 'withdrawn'",
        "UPDATE shared.product_prices SET price_minor = 1",
        "DELETE FROM shared.product_prices",
        "INSERT INTO shared.categories (code, name) VALUES ('mine', '')",
    ],
)
def test_a_tenants_login_writes_orders_through_the_functions_only(
    database: Database, slug: str, statement: str
) -> None:
    with pytest.raises(REFUSED):
        database.as_tenant(slug).execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE eur_schema.orders SET total_minor = total_minor + 1",
        "UPDATE eur_schema.orders SET status = 'cancelled', cancelled_at = now(), user_id = gen_random_uuid()",
        "UPDATE eur_schema.orders SET status = 'paid', cancelled_at = NULL",
        "DELETE FROM eur_schema.orders",
        "TRUNCATE eur_schema.orders CASCADE",
        "UPDATE eur_schema.order_items SET unit_price_minor = 1, line_total_minor = quantity",
        "DELETE FROM eur_schema.order_items",
    ],
)
def test_not_even_the_owner_changes_an_order(buyer: Buyer, thing: UUID, database: Database, statement: str) -> None:
    buyer.cancel(buyer.order([(thing, 1)]))
    buyer.order([(thing, 1)])
    with pytest.raises(psycopg.errors.RestrictViolation):
        database.as_superuser().execute(statement.encode())


@pytest.mark.parametrize(
    ("constraint", "values"),
    [
        ("order_items_line_total_multiplied", "2, 5, 11"),
        ("order_items_quantity_positive", "0, 5, 0"),
        ("order_items_unit_price_positive", "1, 0, 0"),
    ],
)
def test_a_line_that_does_not_add_up_is_refused_by_its_constraint(
    buyer: Buyer, thing: UUID, database: Database, constraint: str, values: str
) -> None:
    order = buyer.order([(thing, 1)])
    line = f"'{order['id']}', 2, gen_random_uuid(), 's', 'n', {values}"
    with pytest.raises(psycopg.errors.CheckViolation, match=constraint):
        database.as_superuser().execute(f"INSERT INTO eur_schema.order_items VALUES ({line})".encode())


def test_a_cancels_key_is_its_own_also_when_nothing_was_left_to_refund(app: Flask, thing: UUID) -> None:
    buyer = Buyer(app, "eur", 1_400)
    one, two = buyer.order([(thing, 1)]), buyer.order([(thing, 1)])
    admin = People(app).make(eur="admin")
    path = f"/api/admin/wallets/{buyer.wallet_id}/refunds"
    assert Api(app).post(path, admin, "eur", json={"paymentId": one["paymentId"]}).status_code == 201
    first = buyer.cancel(one, key="cancel")
    assert buyer.cancel(two, 422, key="cancel")["code"] == "idempotency_key_reused"
    assert buyer.cancel(one, key="cancel") == first
    assert buyer.show(two)["status"] == "paid"


def test_an_admins_refund_is_found_by_its_order(app: Flask, buyer: Buyer, thing: UUID) -> None:
    order = buyer.order([(thing, 1)])
    admin = People(app).make(eur="admin")
    path = f"/api/admin/wallets/{buyer.wallet_id}/refunds"
    refund = Api(app).post(path, admin, "eur", json={"paymentId": order["paymentId"], "amount": "2.00"}).json
    assert refund["orderId"] == order["id"]  # type: ignore[index]
    found: Any = Api(app).get(f"/api/admin/transactions?orderId={order['id']}", admin, "eur").json
    assert [item["amount"] for item in found["items"]] == ["2.00", "-7.00"]
