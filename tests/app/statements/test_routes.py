"""Statements and lists over HTTP: they add up, agree with the ledger, and show no other member's money."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.app.statements.conftest import END, START, Book, fill, text_of
from tests.factories.api import Api
from tests.factories.people import People

TWO = pytest.mark.parametrize("slug", ["eur", "km"])


@TWO
@pytest.mark.parametrize("by_admin", [False, True])
def test_opening_and_movements_make_the_closing_balance_that_the_ledger_says(
    app: Flask, slug: str, by_admin: bool
) -> None:
    book = Book(app, slug)
    book.post("deposit", 10_000)
    start = book.post("payment", 1_250, order_id=uuid4().hex)
    book.post("adjustment", -50, reason="r", admin_id=book.admin.user_id)
    end = book.post("deposit", 300)
    shown = book.statement(text_of(start), text_of(end), by_admin=by_admin)
    assert (shown["openingBalance"], shown["closingBalance"]) == ("100.00", "87.00")
    assert [line["amount"] for line in shown["movements"]] == ["-12.50", "-0.50"]
    assert [line["balanceAfter"] for line in shown["movements"]] == ["87.50", "87.00"]
    assert (shown["walletId"], shown["tenantId"]) == (str(book.wallet_id), slug)
    assert shown["currency"] == {"eur": "EUR", "km": "BAM"}[slug]
    at = book.api.get("/api/wallet/balance", book.member, slug, query_string={"at": text_of(end)}).get_json()
    assert book.statement(START, text_of(end, timedelta(microseconds=1)))["closingBalance"] == at["balance"]


def test_a_movement_looks_in_a_statement_as_it_looks_in_the_list(book: Book) -> None:
    book.post("deposit", 5_000, reference="ref", admin_id=book.admin.user_id)
    book.post("payment", 100, order_id=uuid4().hex, description='"quoted", and\n\ttwo lines — ćš')
    listed = book.api.get("/api/wallet/transactions", book.member, "eur").get_json()["items"]
    assert [item.pop("refundable") for item in listed] == ["1.00", None]  # It changes, so no statement has it.
    assert book.statement()["movements"] == listed[::-1]


def test_adjacent_periods_continue_each_other_and_share_no_movement(book: Book) -> None:
    moments = [text_of(book.post("deposit", 100 + n)) for n in range(4)]
    edges = [START, *moments, END]
    shown = [book.statement(*edges[n : n + 2]) for n in range(5)]
    assert [one["closingBalance"] for one in shown[:-1]] == [one["openingBalance"] for one in shown[1:]]
    assert [[line["seq"] for line in one["movements"]] for one in shown] == [[], [1], [2], [3], [4]]


def test_a_wallet_without_history_has_a_statement_and_a_member_without_wallet_gets_one(app: Flask) -> None:
    person = People(app).make(km="member")
    query = {"from": START, "to": END}
    shown = Api(app).get("/api/wallet/statement", person, "km", query_string=query).get_json()
    assert (shown["openingBalance"], shown["movements"], shown["closingBalance"]) == ("0.00", [], "0.00")


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        ({"to": END}, "from", "required"),
        ({"from": START}, "to", "required"),
        ({"from": START, "to": START}, "to", "empty_period"),
        ({"from": END, "to": START}, "to", "empty_period"),
        ({"from": "2020-01-01", "to": END}, "from", "not_a_moment"),
        ({"from": "0001-01-01T00:00:00+14:00", "to": END}, "from", "not_a_moment"),
        ({"from": START, "to": "9999-12-31T23:59:59-14:00"}, "to", "not_a_moment"),
        ({"from": START, "to": END, "format": "csv"}, "format", "unknown_field"),
        ({"from": START, "to": END, "type": "payment"}, "type", "unknown_field"),
        ({"from": START, "to": END, "orderId": "o"}, "orderId", "unknown_field"),
        ({"from": START, "to": END, "currency": "BAM"}, "currency", "currency_not_allowed"),
    ],
)
def test_a_period_or_format_that_makes_no_sense_is_refused_by_name(
    book: Book, query: dict[str, str], field: str, code: str
) -> None:
    answer = book.api.get("/api/wallet/statement", book.member, "eur", query_string=query)
    assert answer.status_code == 422
    assert [(fault["field"], fault["code"]) for fault in answer.get_json()["errors"]] == [(field, code)]


@pytest.mark.parametrize("form", ["", ".csv", ".pdf"])
def test_another_tenants_wallet_is_not_found_and_a_member_is_no_admin(app: Flask, book: Book, form: str) -> None:
    other = Book(app, "km")
    path = f"/api/admin/wallets/{other.wallet_id}/statement{form}"
    query = {"from": START, "to": END}
    answer = book.api.get(path, book.admin, "eur", query_string=query)
    assert (answer.status_code, answer.get_json()["code"]) == (404, "wallet_not_found")
    own = f"/api/admin/wallets/{book.wallet_id}/statement{form}"
    for path in (own, "/api/admin/transactions", "/api/admin/transactions.csv"):
        assert book.api.get(path, book.member, "eur", query_string=query).status_code == 403


def pages(book: Book, path: str, **query: Any) -> list[list[Any]]:
    """All pages of a list, each as the (walletId, seq) of its items."""
    found, cursor = [], ""
    while cursor is not None:
        more = {"cursor": cursor} if cursor else {}
        page = book.api.get(path, book.admin, book.slug, query_string=query | more).get_json()
        found.append([(item["walletId"], item["seq"]) for item in page["items"]])
        cursor = page["nextCursor"]
    return found


@TWO
def test_the_tenants_transactions_are_listed_newest_first_over_all_wallets_and_pages(app: Flask, slug: str) -> None:
    books = [Book(app, slug) for _ in range(3)]
    start = text_of(books[0].post("deposit", 1))
    made = [(str(books[0].wallet_id), 1)]
    for seq in (1, 2, 3):
        for book in books[seq == 1 :]:
            book.post("deposit", 100)
            made.append((str(book.wallet_id), seq))
    found = pages(books[0], "/api/admin/transactions", **{"from": start, "limit": 4})
    assert [len(page) for page in found] == [4, 4, 1]
    assert [item for page in found for item in page] == made[::-1]


def test_transactions_of_one_moment_are_paged_without_loss(fresh_app: Flask, fresh_database: Database) -> None:
    books = [Book(fresh_app) for _ in range(3)]
    for book in books:
        fill(fresh_database, book, 4)
    found = [item for page in pages(books[0], "/api/admin/transactions", limit=5) for item in page]
    made = {(str(book.wallet_id), seq) for book in books for seq in (1, 2, 3, 4)}
    assert (len(found), set(found)) == (12, made)


def test_the_list_shows_no_other_tenants_transactions(app: Flask, book: Book) -> None:
    other = Book(app, "km")
    start = text_of(book.post("deposit", 1))
    other.post("deposit", 1)
    seen = {wallet_id for page in pages(book, "/api/admin/transactions", **{"from": start}) for wallet_id, _ in page}
    assert str(book.wallet_id) in seen
    assert str(other.wallet_id) not in seen


@pytest.mark.parametrize(
    "path", ["/api/wallet/transactions", "/api/admin/wallets/{}/transactions", "/api/admin/transactions"]
)
def test_every_list_is_filtered_by_type_time_and_order(book: Book, path: str) -> None:
    order = uuid4().hex
    start = book.post("deposit", 1_000)
    paid = book.post("payment", 100, order_id=order)
    book.post("payment", 100, order_id=uuid4().hex)
    end = book.post("deposit", 1)
    person = book.member if path == "/api/wallet/transactions" else book.admin

    def seqs(**query: str) -> list[int]:
        query = {"from": text_of(start), "to": text_of(end), **query}
        answer = book.api.get(path.format(book.wallet_id), person, "eur", query_string=query)
        return [item["seq"] for item in answer.get_json()["items"]]

    assert seqs() == [3, 2, 1]
    assert seqs(type="payment") == [3, 2]
    assert seqs(orderId=order) == [2]
    assert seqs(orderId=order, type="deposit") == []
    assert seqs(orderId=order, to=text_of(paid)) == []


@pytest.mark.parametrize(
    "path", ["/api/wallet/transactions", "/api/admin/wallets/{}/transactions", "/api/admin/transactions"]
)
def test_a_list_whose_period_is_empty_is_refused_by_name(book: Book, path: str) -> None:
    person = book.member if path == "/api/wallet/transactions" else book.admin
    query = {"from": END, "to": END}
    answer = book.api.get(path.format(book.wallet_id), person, "eur", query_string=query)
    assert [(fault["field"], fault["code"]) for fault in answer.get_json()["errors"]] == [("to", "empty_period")]


@pytest.mark.parametrize("path", ["/api/admin/wallets/{}/transactions", "/api/admin/transactions"])
def test_pages_go_on_where_they_were_while_money_moves(book: Book, path: str) -> None:
    made = [(str(book.wallet_id), seq) for seq in (6, 5, 4, 3, 2, 1)]
    query: dict[str, Any] = {"from": text_of(book.post("deposit", 1)), "limit": 2}
    for _ in range(5):
        book.post("deposit", 1)
    found: list[Any] = []
    for _ in range(3):
        page = book.api.get(path.format(book.wallet_id), book.admin, "eur", query_string=query).get_json()
        found += [(item["walletId"], item["seq"]) for item in page["items"]]
        query["cursor"] = page["nextCursor"]
        book.post("deposit", 1)
    assert (found, query["cursor"]) == (made, None)


def test_a_cursor_is_refused_under_another_filter_list_or_tenant(app: Flask) -> None:
    book, other = Book(app), Book(app, "km")
    start = text_of(book.post("deposit", 1))
    book.post("deposit", 1)
    query = {"from": start, "limit": 1}
    cursor = book.api.get("/api/admin/transactions", book.admin, "eur", query_string=query).get_json()["nextCursor"]
    elsewhere = [
        (book, "/api/admin/transactions", {"orderId": "o"}),
        (book, f"/api/admin/wallets/{book.wallet_id}/transactions", {}),
        (other, "/api/admin/transactions", {}),
    ]
    for asker, path, more in elsewhere:
        sent = {**query, **more, "cursor": cursor}
        answer = asker.api.get(path, asker.admin, asker.slug, query_string=sent)
        assert (answer.status_code, answer.get_json()["errors"][0]["code"]) == (422, "bad_cursor")


@pytest.mark.parametrize("form", ["json", "csv", "pdf"])
def test_a_file_has_a_media_type_that_the_description_names(book: Book, form: str) -> None:
    paths = book.app.test_client().get("/openapi.json").get_json()["paths"]
    path = "/api/wallet/statement" if form == "json" else f"/api/wallet/statement.{form}"
    content = paths[path]["get"]["responses"]["200"]["content"]
    answer = book.ask(format=form)
    assert {answer.mimetype} == set(content)
    assert content[answer.mimetype]["schema"].get("contentMediaType", "application/json") == answer.mimetype
