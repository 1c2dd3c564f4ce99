"""Orders as staff see them, and the filters of lists of orders."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of
from tests.factories.api import ID_OF_NOTHING, Api
from tests.factories.catalogue import Catalogue
from tests.factories.people import People, Person


class Shop:
    """A member with two orders, of which one is cancelled, and a member with one."""

    def __init__(self, app: Flask, database: Database, slug: str) -> None:
        self.api, self.slug, people = Api(app), slug, People(app)
        self.admin = people.make(**{slug: "admin"})
        self.product: UUID = Catalogue(database).product(EUR="1.00", BAM="1.00")[1]
        self.ana, self.bob = (people.make(name=name, **{slug: "member"}) for name in ("Ana", "Bob"))
        self.wallets = {person: people.wallet(person, slug, balance_minor=900) for person in (self.ana, self.bob)}
        self.orders = [self.order(self.ana), self.order(self.bob), self.order(self.ana)]
        cancelled = self.api.post(f"/api/orders/{self.orders[0]['id']}/cancel", self.ana, slug)
        assert cancelled.status_code == 200

    def order(self, person: Person) -> Any:
        body = {"items": [{"productId": str(self.product), "quantity": 2}]}
        answer = self.api.post("/api/orders", person, self.slug, json=body)
        assert answer.status_code == 201, answer.text
        return answer.json

    def listed(self, path: str, person: Person | None = None, **query: Any) -> list[int]:
        """The numbers of this shop's orders in the list."""
        answer = self.api.get(f"/api/{path}", person or self.admin, self.slug, query_string={"limit": 200, **query})
        assert answer.status_code == 200, answer.text
        numbers = {order["id"]: number for number, order in enumerate(self.orders)}
        return [numbers[item["id"]] for item in answer.json["items"] if item["id"] in numbers]


@pytest.fixture(params=["eur", "km"])
def shop(request: pytest.FixtureRequest, app: Flask, database: Database) -> Shop:
    return Shop(app, database, request.param)


def test_staff_list_the_orders_of_all_of_a_member_and_of_a_wallet(shop: Shop) -> None:
    assert shop.listed("admin/orders") == [2, 1, 0]
    assert shop.listed("admin/orders", userId=shop.ana.user_id) == [2, 0]
    assert shop.listed(f"admin/wallets/{shop.wallets[shop.bob]}/orders") == [1]
    problem_of(shop.api.get(f"/api/admin/wallets/{uuid4()}/orders", shop.admin, shop.slug), 404, "wallet_not_found")


def test_lists_of_orders_are_filtered_by_status_and_time(shop: Shop) -> None:
    whose = {"userId": shop.ana.user_id}
    for path, person, more in (
        ("admin/orders", None, whose),
        (f"admin/wallets/{shop.wallets[shop.ana]}/orders", None, {}),
        ("orders", shop.ana, {}),
    ):
        assert shop.listed(path, person, status="cancelled", **more) == [0]
        assert shop.listed(path, person, status="paid", **more) == [2]
        since = shop.orders[1]["createdAt"]
        assert shop.listed(path, person, **{"from": since}, **more) == [2]
        assert shop.listed(path, person, to=since, **more) == [0]
    assert shop.listed("admin/orders", status="cancelled") == [0]
    assert shop.listed("admin/orders", status="paid") == [2, 1]


def test_staff_read_one_order_with_its_items_and_its_member(shop: Shop) -> None:
    told: Any = shop.api.get(f"/api/admin/orders/{shop.orders[1]['id']}", shop.admin, shop.slug).json
    assert told["owner"] == {"id": str(shop.bob.user_id), "email": shop.bob.email, "name": "Bob", "removedAt": None}
    own: Any = shop.api.get(f"/api/orders/{shop.orders[1]['id']}", shop.bob, shop.slug).json
    assert own.items() <= told.items()
    problem_of(shop.api.get(f"/api/admin/orders/{ID_OF_NOTHING}", shop.admin, shop.slug), 404, "order_not_found")


def test_a_page_of_orders_tells_the_total_if_asked(shop: Shop) -> None:
    path = f"/api/admin/wallets/{shop.wallets[shop.ana]}/orders?limit=1&count=true"
    page: Any = shop.api.get(path, shop.admin, shop.slug).json
    assert (page["total"], page["isTotalExact"], len(page["items"])) == (2, True, 1)
    page = shop.api.get(f"{path}&status=paid", shop.admin, shop.slug).json
    assert (page["total"], page["isTotalExact"]) == (1, True)
