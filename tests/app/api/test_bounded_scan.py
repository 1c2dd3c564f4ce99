"""Pages whose filters no index answers look at a bounded number of rows, and lose none."""

from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from flask import Flask

from app.api import bounded_scan
from app.ledger.models import Movement
from app.ledger.service import post
from tenant_schemas.flask import tenant_context
from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.catalogue import Catalogue
from tests.factories.people import People

NEEDLES = (2, 3, 9)  # of twelve movements, oldest first


class Stack:
    """A wallet of twelve deposits, of which three have the reference that is looked for."""

    def __init__(self, app: Flask) -> None:
        people = People(app)
        self.api, self.admin = Api(app), people.make(eur="admin")
        self.reference = uuid4().hex
        self.wallet_id = people.wallet(people.make(eur="member"), "eur")
        with app.app_context(), tenant_context("eur"):
            for number in range(12):
                reference = self.reference if number in NEEDLES else None
                told = {"amount_minor": number + 1, "idempotency_key": uuid4().hex, "reference": reference}
                post(self.wallet_id, Movement(type="deposit", **told))

    def page(self, path: str, cursor: str | None = None, **query: Any) -> Any:
        more = f"&cursor={quote(cursor)}" if cursor else ""
        asked = "&".join(f"{name}={value}" for name, value in {"reference": self.reference, **query}.items())
        answer = self.api.get(f"/api/admin/{path}?{asked}{more}", self.admin, "eur")
        assert answer.status_code == 200, answer.text
        return answer.json

    def walk(self, path: str, **query: Any) -> list[list[int]]:
        """The numbers of the movements, page by page."""
        pages, cursor = [], None
        for _ in range(50):
            page = self.page(path, cursor, **query)
            pages.append([int(item["amount"].replace(".", "")) - 1 for item in page["items"]])
            cursor = page["nextCursor"]
            if cursor is None:
                return pages
        pytest.fail("the pages never end")


@pytest.fixture
def stack(app: Flask) -> Stack:
    return Stack(app)


@pytest.mark.parametrize("limit", [1, 2, 50])
@pytest.mark.parametrize("most", [1, 3, 4, 12, 1000])
def test_a_bounded_walk_finds_each_row_once(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, limit: int, most: int
) -> None:
    monkeypatch.setattr(bounded_scan, "MAX_SCANNED", most)
    pages = stack.walk(f"wallets/{stack.wallet_id}/transactions", limit=limit)
    assert [number for page in pages for number in page] == [9, 3, 2]
    assert all(len(page) <= limit for page in pages)
    assert len(pages) >= -(-12 // most) - 1, "each request looks at so many rows at most"


def test_the_tenants_list_is_walked_by_the_same_rule(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the newest of all wallets on: other tests' movements are older."""
    monkeypatch.setattr(bounded_scan, "MAX_SCANNED", 5)
    found: list[int] = []
    cursor = None
    for _ in range(3):
        page = stack.page("transactions", cursor)
        found += [int(item["amount"].replace(".", "")) - 1 for item in page["items"]]
        cursor = page["nextCursor"]
    assert found == [9, 3, 2]


@pytest.mark.parametrize(("most", "total", "is_exact"), [(1000, 3, True), (12, 3, False), (13, 3, True), (3, 1, False)])
def test_a_total_is_told_if_asked_and_says_whether_it_is_exact(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, most: int, total: int, is_exact: bool
) -> None:
    monkeypatch.setattr(bounded_scan, "MAX_SCANNED", most)
    path = f"wallets/{stack.wallet_id}/transactions"
    assert "total" not in stack.page(path)
    page = stack.page(path, limit=1, count="true")
    assert (page["total"], page["isTotalExact"]) == (total, is_exact)
    if page["nextCursor"]:
        again = stack.page(path, page["nextCursor"], limit=1, count="true")
        assert (again["total"], again["isTotalExact"]) == (total, is_exact), "it is that of all pages"


@pytest.mark.parametrize("listed", ["transactions", "audit-log", "holds", "orders"])
def test_a_total_without_a_filter_counts_the_tenants_rows(
    fresh_app: Flask, fresh_database: Database, listed: str
) -> None:
    people, api = People(fresh_app), Api(fresh_app)
    admin, member = people.make(eur="admin"), people.make(eur="member")
    path = f"/api/admin/{listed}?limit=1&count=true"
    empty = api.get(path, admin, "eur").json
    assert (empty["items"], empty["total"], empty["isTotalExact"]) == ([], 0, True)
    wallet_id = people.wallet(member, "eur", balance_minor=10_000)
    if listed in {"transactions", "audit-log"}:
        for _ in range(3):
            api.post(f"/api/admin/wallets/{wallet_id}/deposits", admin, "eur", json={"amount": "1.00"})
        rows = {"transactions": 4, "audit-log": 3}[listed]
    else:
        product = Catalogue(fresh_database).product(EUR="1.00")[1] if listed == "orders" else None
        body = {"items": [{"productId": str(product), "quantity": 1}]} if product else {"amount": "1.00"}
        for _ in range(3):
            made = api.post("/api/orders" if product else "/api/wallet/holds", member, "eur", json=body)
            assert made.status_code == 201, made.text
        rows = 3
    page = api.get(path, admin, "eur").json
    assert (len(page["items"]), page["total"], page["isTotalExact"]) == (1, rows, True)
