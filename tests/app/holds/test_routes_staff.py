"""Holds as staff see them, one hold, and the filters of lists of holds."""

from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of
from tests.factories.api import Api
from tests.factories.people import People, Person

STATUSES = ("active", "captured", "voided", "expired", "expired")


class Reception:
    """A member's holds, one in each status; the last has expired and its row does not say so yet."""

    def __init__(self, app: Flask, database: Database, slug: str) -> None:
        self.api, self.slug, people = Api(app), slug, People(app)
        self.admin, self.member = people.make(**{slug: "admin"}), people.make(name="Ana", **{slug: "member"})
        self.wallet_id: UUID = people.wallet(self.member, slug, balance_minor=10_000)
        self.holds = [self.post("wallet/holds", {"amount": "1.00"}) for _ in STATUSES]
        self.post(f"wallet/holds/{self.holds[1]['id']}/capture", {})
        self.post(f"wallet/holds/{self.holds[2]['id']}/void", None)
        age = f"UPDATE {slug}_schema.holds SET expires_at = now() - interval '1 minute' WHERE id = %s"
        superuser = database.as_superuser()
        superuser.execute(age.encode(), (self.holds[3]["id"],))
        superuser.execute(f"SELECT {slug}_schema.holds_expire_v1(100)".encode())
        superuser.execute(age.encode(), (self.holds[4]["id"],))

    def post(self, path: str, body: Any) -> Any:
        sent = {} if body is None else {"json": body}
        answer = self.api.post(f"/api/{path}", self.member, self.slug, **sent)
        assert answer.status_code in {200, 201}, answer.text
        return answer.json

    def listed(self, path: str, person: Person | None = None, **query: Any) -> list[int]:
        answer = self.api.get(f"/api/{path}", person or self.admin, self.slug, query_string={"limit": 200, **query})
        assert answer.status_code == 200, answer.text
        numbers = {hold["id"]: number for number, hold in enumerate(self.holds)}
        return [numbers[item["id"]] for item in answer.json["items"] if item["id"] in numbers]


@pytest.fixture(params=["eur", "km"])
def reception(request: pytest.FixtureRequest, app: Flask, database: Database) -> Reception:
    return Reception(app, database, request.param)


def test_lists_of_holds_are_filtered_by_status_and_time(reception: Reception) -> None:
    for path, person in (
        ("wallet/holds", reception.member),
        (f"admin/wallets/{reception.wallet_id}/holds", None),
        ("admin/holds", None),
    ):
        assert reception.listed(path, person) == [4, 3, 2, 1, 0]
        for status in set(STATUSES):
            expected = [number for number, of in reversed(list(enumerate(STATUSES))) if of == status]
            assert reception.listed(path, person, status=status) == expected, status
        since, until = (reception.holds[number]["createdAt"] for number in (1, 4))
        assert reception.listed(path, person, **{"from": since, "to": until}) == [3, 2, 1]


def test_one_hold_is_shown_to_its_member_and_to_staff(reception: Reception) -> None:
    for number, status in enumerate(STATUSES):
        hold_id = reception.holds[number]["id"]
        own: Any = reception.api.get(f"/api/wallet/holds/{hold_id}", reception.member, reception.slug).json
        told: Any = reception.api.get(f"/api/admin/holds/{hold_id}", reception.admin, reception.slug).json
        assert (own["id"], own["status"]) == (hold_id, status)
        assert told.pop("owner")["name"] == "Ana"
        assert told == own


def test_another_members_hold_is_as_if_it_were_not(reception: Reception, people: People) -> None:
    other = people.make(**{reception.slug: "member"})
    path = f"/api/wallet/holds/{reception.holds[0]['id']}"
    problem_of(reception.api.get(path, other, reception.slug), 404, "hold_not_found")
