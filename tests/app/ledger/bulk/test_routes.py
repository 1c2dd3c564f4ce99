"""Bulk posting over HTTP: requests and answers."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask

from tenant_schemas.search_path import BindingEngine
from tests.app.api.test_problems import faults_of, problem_of
from tests.app.ledger.bulk.conftest import Desk, body_of, item
from tests.factories.api import Api

TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])
BULK = "/api/admin/transactions/bulk"


@TENANTS
def test_all_items_are_posted_and_answered_in_their_order(app: Flask, slug: str) -> None:
    desk = Desk(app, slug)
    first, second = sorted(desk.wallets(2), reverse=True)
    answer = desk.post(
        [
            item(first, "deposit", "10.00", reference="bank"),
            item(second, "adjustment", "2.50", reason="counted"),
            item(first, "payment", "4.00", orderId=f"bread-{slug}", description="bread"),
            item(second, "adjustment", "-0.50", reason="counted again"),
        ]
    )["items"]
    assert [(shown["index"], shown["status"], shown["replayed"]) for shown in answer] == [
        (index, 201, False) for index in range(4)
    ]
    told = [shown["transaction"] for shown in answer]
    assert [(t["walletId"], t["type"], t["amount"], t["balanceAfter"], t["seq"]) for t in told] == [
        (str(first), "deposit", "10.00", "10.00", 1),
        (str(second), "adjustment", "2.50", "2.50", 1),
        (str(first), "payment", "-4.00", "6.00", 2),
        (str(second), "adjustment", "-0.50", "2.00", 2),
    ]
    texts = [told[0]["reference"], told[1]["reason"], told[2]["orderId"], told[2]["description"]]
    assert texts == ["bank", "counted", f"bread-{slug}", "bread"]
    assert {(t["adminId"], t["tenantId"]) for t in told} == {(str(desk.admin.user_id), slug)}


def test_an_item_is_the_transaction_that_the_single_route_makes(desk: Desk) -> None:
    wallet_id = desk.wallet(1_000)
    (shown,) = desk.post([item(wallet_id, "payment", "1.00", description="bread")])["items"]
    single = body_of(desk.one(wallet_id, "payments", amount="1.00", description="bread"), 201)
    own = ("id", "seq", "balanceAfter", "createdAt")
    assert list(shown["transaction"]) == list(single)
    assert {name: value for name, value in shown["transaction"].items() if name not in own} == {
        name: value for name, value in single.items() if name not in own
    }


def test_amounts_are_exact_in_each_wallets_own_currency(desk: Desk) -> None:
    amounts = {"JPY": "1234567", "KWD": "0.125", "EUR": "0.10"}
    wallets = {currency: desk.wallet(currency=currency) for currency in amounts}
    desk.post([item(wallets[currency], "deposit", amount) for currency, amount in amounts.items()])
    assert {currency: desk.balance(wallet_id) for currency, wallet_id in wallets.items()} == amounts


@pytest.mark.parametrize(("currency", "amount"), [("JPY", "1.5"), ("KWD", "0.0001"), ("EUR", "0.001")])
def test_too_many_digits_for_an_items_currency_refuse_the_whole(desk: Desk, currency: str, amount: str) -> None:
    euros, other = desk.wallet(), desk.wallet(currency=currency)
    for atomic in (True, False):
        answer = desk.send([item(euros, "deposit", "1.00"), item(other, "deposit", amount)], atomic=atomic)
        assert faults_of(answer) == [("items.1.amount", "too_many_fraction_digits")]
    assert desk.history(euros) == []


# --- a repeated key ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("atomic", "status"), [(True, 201), (False, 200)])
def test_the_same_key_and_request_have_the_same_answer(desk: Desk, atomic: bool, status: int) -> None:
    wallets, key = desk.wallets(3, 500), uuid4().hex
    items = [item(wallet_id, "payment", "1.00") for wallet_id in (*wallets, *wallets)]
    answers = [desk.send(items, key, atomic=atomic) for _ in range(2)]
    first, second = (body_of(answer, status)["items"] for answer in answers)
    assert ["Idempotent-Replayed" in answer.headers for answer in answers] == [False, True]
    assert {shown["replayed"] for shown in second} == {True}
    assert [shown["transaction"] for shown in first] == [shown["transaction"] for shown in second]
    assert [desk.balance(wallet_id) for wallet_id in wallets] == ["3.00"] * 3


def test_what_was_refused_is_tried_again_and_what_was_posted_is_replayed(desk: Desk) -> None:
    rich, poor = desk.wallets(2, 100)
    items, key = [item(rich, "payment", "1.00"), item(poor, "payment", "2.00")], uuid4().hex
    assert [shown["status"] for shown in desk.each(items, key)] == [201, 409]
    desk.post([item(poor, "deposit", "1.00")])
    again = desk.send(items, key, atomic=False)
    assert [(shown["status"], shown["replayed"]) for shown in body_of(again, 200)["items"]] == [
        (201, True), (201, False),
    ]  # fmt: skip
    assert "Idempotent-Replayed" not in again.headers


@pytest.mark.parametrize("change", ["amount", "text", "atomic", "order", "less", "more"])
def test_the_same_key_with_another_request_is_refused_as_a_whole(desk: Desk, change: str) -> None:
    wallets, key = desk.wallets(2, 500), uuid4().hex
    items = [item(wallet_id, "payment", "1.00", description="bread") for wallet_id in wallets]
    desk.post(items, key=key)
    other = {
        "amount": [items[0], items[1] | {"amount": "1.01"}],
        "text": [items[0], items[1] | {"description": "milk"}],
        "order": items[::-1],
        "less": items[:1],
        "more": [*items, item(desk.wallet(), "deposit", "1.00")],
    }.get(change, items)
    for atomic in (change != "atomic", False):
        problem = problem_of(desk.send(other, key, atomic=atomic), 422, "idempotency_key_reused")
        assert "item" not in problem
    assert [desk.balance(wallet_id) for wallet_id in wallets] == ["4.00", "4.00"]


def test_the_same_key_of_another_admin_is_another_request(desk: Desk) -> None:
    wallet_id, key = desk.wallet(), uuid4().hex
    items = [item(wallet_id, "deposit", "1.00")]
    desk.post(items, key=key)
    desk.admin = desk.people.make(eur="admin")
    for is_replayed in (False, True):
        assert [shown["replayed"] for shown in desk.post(items, key=key)["items"]] == [is_replayed]
    assert desk.balance(wallet_id) == "2.00"


@pytest.mark.parametrize("atomic", [True, False])
def test_the_same_key_with_other_wallets_is_refused(desk: Desk, atomic: bool) -> None:
    """Also if the first request posted nothing, because each of its items was refused."""
    first, second, key = desk.wallet(100), desk.wallet(100), uuid4().hex
    desk.send([item(first, "payment", "1.00" if atomic else "9.00")], key, atomic=atomic)
    problem = problem_of(
        desk.send([item(second, "payment", "1.00")], key, atomic=atomic), 422, "idempotency_key_reused"
    )
    assert "item" not in problem
    assert desk.history(second) == [("deposit", "1.00")]


def test_a_refused_atomic_request_leaves_its_key_free(desk: Desk) -> None:
    poor, key = desk.wallet(), uuid4().hex
    problem_of(desk.send([item(poor, "payment", "1.00")], key), 409, "insufficient_funds")
    desk.post([item(poor, "deposit", "1.00")], key=key)


@pytest.mark.parametrize("atomic", [True, False])
def test_an_item_that_meets_a_used_key_is_named(desk: Desk, atomic: bool) -> None:
    first, second, key = *desk.wallets(2), uuid4().hex
    body = {"amount": "1.00"}
    path = f"/api/admin/wallets/{second}/deposits"
    assert Api(desk.app).post(path, desk.admin, desk.slug, key=key, json=body).status_code == 201
    items = [item(first, "deposit", "1.00"), item(second, "deposit", "1.00")]
    problem = problem_of(desk.send(items, key, atomic=atomic), 422, "idempotency_key_reused")
    assert (problem["item"], problem["walletId"]) == (1, str(second))
    assert desk.history(first) == []


def test_a_key_has_255_characters_at_most_and_one_that_long_is_taken(desk: Desk) -> None:
    items = [item(desk.wallet(), "deposit", "1.00")] * 1_000
    for key in ("k" * 256, "a,b"):
        assert faults_of(desk.send(items, key)) == [("Idempotency-Key", "not_a_key")]
    desk.post(items, key=uuid4().hex + "k" * 223)
    problem_of(Api(desk.app).send("POST", BULK, desk.admin, "eur", json={"items": items}), 400,
               "idempotency_key_required")  # fmt: skip


# --- how many ------------------------------------------------------------------------------------------------------


def test_a_thousand_items_with_the_longest_texts_are_posted_and_one_more_is_refused(desk: Desk) -> None:
    wallets = desk.wallets(10, 10_000)
    marker = uuid4().hex
    items = [
        item(wallets[n % 10], "payment", "1.00", orderId=f"{marker}{n}".ljust(100, "š"), description="𝕏" * 500)
        for n in range(1_000)
    ]
    for atomic in (True, False):
        assert faults_of(desk.send([*items, items[0]], atomic=atomic)) == [("items", "items_out_of_range")]
    text = json.dumps({"items": items}, ensure_ascii=False)
    answer = Api(desk.app).post(BULK, desk.admin, "eur", data=text, content_type="application/json")
    shown = body_of(answer, 201)["items"]
    assert [told["index"] for told in shown] == list(range(1_000))
    assert [told["transaction"]["orderId"] for told in shown] == [sent["orderId"] for sent in items]
    assert [desk.balance(wallet_id) for wallet_id in wallets] == ["0.00"] * 10


def test_more_than_four_mebibytes_are_too_much(desk: Desk) -> None:
    text = b'{"items": []}' + b" " * 4 * 1024 * 1024
    sent = Api(desk.app).post(BULK, desk.admin, "eur", data=text, content_type="application/json")
    problem_of(sent, 413, "body_too_large")


@pytest.mark.parametrize("count", [1, 200])
def test_however_many_items_there_are_postgresql_is_called_once_to_read_and_once_to_post(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    said: list[str] = []
    call = BindingEngine.one_statement

    def listen(engine: BindingEngine, query: Any, *arguments: Any, **named: Any) -> Any:
        said.append(query)
        return call(engine, query, *arguments, **named)

    wallets = desk.wallets(2)
    monkeypatch.setattr(BindingEngine, "one_statement", listen)
    desk.post([item(wallets[n % 2], "deposit", "1.00") for n in range(count)])
    who, currencies, posting = said
    assert "shared." in who
    assert "SELECT id, currency FROM wallets" in currencies
    assert "wallet_post_many_v3" in posting


# --- what may be sent ----------------------------------------------------------------------------------------------


WRONG: dict[str, tuple[Any, tuple[str, str]]] = {
    "no list": ({}, ("items", "not_a_list")),
    "null": (None, ("items", "required")),
    "nothing": ([], ("items", "items_out_of_range")),
    "no object": ([{}, "deposit"], ("items.1", "not_an_object")),
    "null as an item": ([None], ("items.0", "not_an_object")),
    "no type": ([{"amount": "1.00"}], ("items.0.type", "required")),
    "a type of no text": ([{"type": ["deposit"]}], ("items.0.type", "unknown_choice")),
    "a refund": ([{"type": "refund"}], ("items.0.type", "unknown_choice")),
    "an opening": ([{"type": "opening"}], ("items.0.type", "unknown_choice")),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_list_of_movements_is_refused(desk: Desk, what: str) -> None:
    items, fault = WRONG[what]
    assert fault in faults_of(desk.send(items))


@pytest.mark.parametrize(
    ("type_", "changed", "fault"),
    [
        ("deposit", {"amount": "-1.00"}, ("amount", "amount_not_positive")),
        ("deposit", {"amount": 1}, ("amount", "amount_not_a_string")),
        ("deposit", {"reason": "why"}, ("reason", "unknown_field")),
        ("deposit", {"orderId": "o"}, ("orderId", "unknown_field")),
        ("deposit", {"reference": "x" * 201}, ("reference", "too_long")),
        ("payment", {"amount": "0"}, ("amount", "amount_not_positive")),
        ("payment", {"reference": "r"}, ("reference", "unknown_field")),
        ("payment", {"reason": "why"}, ("reason", "unknown_field")),
        ("payment", {"orderId": ""}, ("orderId", "empty")),
        ("payment", {"adminId": str(uuid4())}, ("adminId", "unknown_field")),
        ("payment", {"holdId": str(uuid4())}, ("holdId", "unknown_field")),
        ("payment", {"idempotencyKey": "k"}, ("idempotencyKey", "unknown_field")),
        ("payment", {"description": "a\x00"}, ("description", "nul_character")),
        ("adjustment", {"amount": "0"}, ("amount", "amount_zero")),
        ("adjustment", {"reason": None}, ("reason", "required")),
        ("adjustment", {"description": "d"}, ("description", "unknown_field")),
        ("adjustment", {"walletId": "1"}, ("walletId", "not_a_uuid")),
        ("adjustment", {"walletId": None}, ("walletId", "required")),
        ("adjustment", {"balanceAfter": "1.00"}, ("balanceAfter", "unknown_field")),
    ],
)
def test_a_field_that_is_wrong_or_not_the_types_is_refused_by_name_and_place(
    desk: Desk, type_: str, changed: dict[str, Any], fault: tuple[str, str]
) -> None:
    wallet_id = desk.wallet()
    right = item(wallet_id, type_, "1.00")
    answer = desk.send([item(wallet_id, "deposit", "5.00"), right | changed], atomic=False)
    (found,) = faults_of(answer)
    assert found == (fault[0] if fault[1] == "nul_character" else f"items.1.{fault[0]}", fault[1])
    assert desk.history(wallet_id) == []


def test_an_adjustment_needs_a_reason_and_every_fault_is_listed(desk: Desk) -> None:
    wallet_id = str(UUID(int=1))
    items = [{"walletId": wallet_id, "type": "adjustment", "amount": "1.00"}, {"type": "deposit"}]
    assert faults_of(desk.send(items)) == [
        ("items.0.reason", "required"), ("items.1.amount", "required"), ("items.1.walletId", "required"),
    ]  # fmt: skip


@pytest.mark.parametrize("atomic", ["true", 1, 0, None, "no"])
def test_atomic_is_true_or_false(desk: Desk, atomic: Any) -> None:
    assert faults_of(desk.send([item(desk.wallet(), "deposit", "1.00")], atomic=atomic)) == [
        ("atomic", "not_a_boolean")
    ]


def test_it_is_the_admins_business(desk: Desk) -> None:
    desk.admin = desk.people.make(eur="member")
    problem_of(desk.send([item(uuid4(), "deposit", "1.00")]), 403, "admin_required")


def test_the_description_of_the_api_has_the_three_forms_of_an_item_told_apart_by_their_type(api: Api) -> None:
    described: Any = api.get("/openapi.json").json
    forms = described["components"]["schemas"]
    items = forms["Bulk"]["properties"]["items"]
    mapping = items["items"]["discriminator"]["mapping"]
    assert (items["minItems"], items["maxItems"], set(mapping)) == (1, 1_000, {"deposit", "payment", "adjustment"})
    assert [found["$ref"] for found in items["items"]["oneOf"]] == list(mapping.values())
    for type_, reference in mapping.items():
        form = forms[reference.rpartition("/")[2]]
        assert form["properties"]["type"]["enum"] == [type_]
        assert {"walletId", "type", "amount"} <= set(form["required"])
