"""An office: the admin of one tenant, who sets limits and reads reports."""

from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.factories.api import Api
from tests.factories.people import People, Person


class Office:
    def __init__(self, app: Flask, slug: str) -> None:
        self.app, self.slug = app, slug
        self.people = People(app)
        self.admin: Person = self.people.make(**{slug: "admin"})

    def get(self, path: str, status: int = 200) -> dict[str, Any]:
        return body_of(Api(self.app).get(f"/api/admin/{path}", self.admin, self.slug), status)

    def pages(self, path: str, limit: int = 2) -> list[dict[str, Any]]:
        """All items of a list, read page by page."""
        items: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None:
            page = self.get(f"{path}?limit={limit}" + (f"&cursor={cursor}" if cursor else ""))
            items += page["items"]
            cursor = page["nextCursor"]
        return items

    def put_policy(self, currency: str, default: str, ceiling: str | None) -> TestResponse:
        """With a client of its own, so that threads can call it; as all methods below."""
        body = {"defaultLimit": default, "maxLimit": ceiling}
        return Api(self.app).send("PUT", f"/api/admin/credit-policies/{currency}", self.admin, self.slug, json=body)

    def set_policy(self, currency: str, default: str, ceiling: str | None) -> dict[str, Any]:
        return body_of(self.put_policy(currency, default, ceiling), 200)

    def member(self, currency: str | None = None, **told: Any) -> tuple[Person, UUID]:
        """A new member and their wallet."""
        person = self.people.make(**{self.slug: "member"})
        return person, self.people.wallet(person, self.slug, currency=currency, **told)

    def wallet(self, wallet_id: UUID) -> dict[str, Any]:
        return self.get(f"wallets/{wallet_id}")

    def limit(self, wallet_id: UUID, credit_limit: str) -> TestResponse:
        path = f"/api/admin/wallets/{wallet_id}"
        seen = Api(self.app).get(path, self.admin, self.slug).headers["ETag"]
        return Api(self.app).patch(path, self.admin, self.slug, if_match=seen, json={"creditLimit": credit_limit})

    def move(self, wallet_id: UUID, kind: str, amount: str) -> TestResponse:
        """`kind` is deposits or payments."""
        path = f"/api/admin/wallets/{wallet_id}/{kind}"
        return Api(self.app).post(path, self.admin, self.slug, json={"amount": amount})


def body_of(answer: TestResponse, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    shown: dict[str, Any] = answer.get_json(force=True)
    return shown


@pytest.fixture
def office(fresh_app: Flask) -> Office:
    """In eur, which is this test's own: policies and reports are of the whole tenant."""
    return Office(fresh_app, "eur")
