"""A desk: the admin of one tenant, who moves money of many wallets at once."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.factories.api import Api
from tests.factories.people import People, Person

Item = dict[str, Any]


class Desk:
    def __init__(self, app: Flask, slug: str) -> None:
        self.app, self.slug = app, slug
        self.people = People(app)
        self.admin: Person = self.people.make(**{slug: "admin"})

    def wallet(self, balance_minor: int = 0, **told: Any) -> UUID:
        """A new member's wallet."""
        person = self.people.make(**{self.slug: "member"})
        return self.people.wallet(person, self.slug, balance_minor=balance_minor, **told)

    def wallets(self, count: int, balance_minor: int = 0) -> list[UUID]:
        return [self.wallet(balance_minor) for _ in range(count)]

    def send(self, items: Any, key: str | None = None, **more: Any) -> TestResponse:
        """With a client of its own, so that threads can call it."""
        body = {"items": items} | more
        return Api(self.app).post("/api/admin/transactions/bulk", self.admin, self.slug, key=key, json=body)

    def post(self, items: Sequence[Item], status: int = 201, key: str | None = None, **more: Any) -> dict[str, Any]:
        return body_of(self.send(items, key, **more), status)

    def each(self, items: Sequence[Item], key: str | None = None) -> list[dict[str, Any]]:
        """Non-atomic: each item on its own."""
        answer: list[dict[str, Any]] = self.post(items, 200, key, atomic=False)["items"]
        return answer

    def one(self, wallet_id: UUID, kind: str, **body: Any) -> TestResponse:
        """By the route for one movement; `kind` is deposits, payments or adjustments."""
        return Api(self.app).post(f"/api/admin/wallets/{wallet_id}/{kind}", self.admin, self.slug, json=body)

    def configure(self, wallet_id: UUID, **body: str) -> None:
        path = f"/api/admin/wallets/{wallet_id}"
        seen = Api(self.app).get(path, self.admin, self.slug).headers["ETag"]
        body_of(Api(self.app).patch(path, self.admin, self.slug, if_match=seen, json=body), 200)

    def balance(self, wallet_id: UUID) -> str:
        return str(self._get(f"wallets/{wallet_id}")["balance"])

    def history(self, wallet_id: UUID) -> list[tuple[str, str]]:
        """Type and amount of each movement, oldest first."""
        found = self._get(f"wallets/{wallet_id}/transactions?limit=200")["items"]
        return [(item["type"], item["amount"]) for item in reversed(found)]

    def _get(self, path: str) -> dict[str, Any]:
        return body_of(Api(self.app).get(f"/api/admin/{path}", self.admin, self.slug), 200)


def body_of(answer: TestResponse, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    shown: dict[str, Any] = answer.get_json(force=True)
    return shown


def item(wallet_id: UUID, type_: str, amount: str, **more: Any) -> Item:
    told = {"reason": "a test"} if type_ == "adjustment" else {}
    return {"walletId": str(wallet_id), "type": type_, "amount": amount} | told | more


def in_threads(count: int, act: Callable[[int], Any]) -> list[Any]:
    """Start all at the same moment."""
    start = Barrier(count)

    def run(number: int) -> Any:
        start.wait()
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@pytest.fixture
def desk(app: Flask) -> Desk:
    return Desk(app, "eur")


@pytest.fixture(scope="module", autouse=True)
def sound_afterwards(app: Flask) -> Iterator[None]:
    """After these tests the ledgers of both tenants are sound."""
    yield
    said = app.test_cli_runner().invoke(args=["wallets", "audit"])
    assert said.exit_code == 0, said.output
