"""The audit log as a screen reads it: by time, actor and kind, with names, and with a total if asked."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from psycopg.types.json import Jsonb

from app.audit.service import entry_json
from app.auth.actors import Actor, ActorKind
from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.people import People, Person


class Ledger:
    """An admin and an operator who changed a member's limit, in turns."""

    def __init__(self, app: Flask, slug: str) -> None:
        people, self.api, self.slug = People(app), Api(app), slug
        self.admin, self.member = (
            people.make(name="Boss", **{slug: "admin"}),
            people.make(name="Ana", **{slug: "member"}),
        )
        self.operator = people.make(name="Secret Name", is_operator=True)
        self.wallet_id: UUID = people.wallet(self.member, slug)
        for version, (person, limit) in enumerate(
            ((self.admin, "1.00"), (self.operator, "2.00"), (self.admin, "3.00")), start=1
        ):
            path = f"/api/admin/wallets/{self.wallet_id}"
            answer = self.api.patch(path, person, slug, if_match=f'"{version}"', json={"creditLimit": limit})
            assert answer.status_code == 200, answer.text

    def page(self, path: str = "audit-log", person: Person | None = None, **query: Any) -> Any:
        query = query if path != "audit-log" else {"walletId": str(self.wallet_id), **query}
        answer = self.api.get(f"/api/admin/{path}", person or self.admin, self.slug, query_string=query)
        assert answer.status_code == 200, answer.text
        return answer.json

    def limits(self, **query: Any) -> list[str]:
        """The limits that were set, newest first."""
        items = self.page(**query)["items"]
        return [item["after"]["creditLimit"] for item in items if item["action"] == "wallet.configure"]


@pytest.fixture(params=["eur", "km"])
def ledger(request: pytest.FixtureRequest, app: Flask) -> Ledger:
    return Ledger(app, request.param)


def test_the_log_is_found_by_time_actor_and_kind(ledger: Ledger) -> None:
    entries = [item for item in ledger.page()["items"] if item["action"] == "wallet.configure"]
    assert ledger.limits() == ["3.00", "2.00", "1.00"]
    assert ledger.limits(**{"from": entries[1]["at"]}) == ["3.00", "2.00"]
    assert ledger.limits(to=entries[1]["at"]) == ["1.00"]
    assert ledger.limits(**{"from": entries[1]["at"], "to": entries[0]["at"]}) == ["2.00"]
    assert ledger.limits(actorKind="operator") == ["2.00"]
    assert ledger.limits(actorId=ledger.admin.user_id) == ["3.00", "1.00"]
    assert ledger.limits(actorId=ledger.admin.user_id, to=entries[0]["at"]) == ["1.00"]


def test_who_changed_the_limit_is_told_by_name_and_an_operator_has_none(ledger: Ledger) -> None:
    boss = {"kind": "user", "id": str(ledger.admin.user_id), "name": "Boss", "email": ledger.admin.email}
    operator = {"kind": "operator", "id": str(ledger.operator.user_id), "name": "operator", "email": None}
    found = [item for item in ledger.page()["items"] if item["action"] == "wallet.configure"]
    assert [item["actor"] for item in found] == [boss, operator, boss]
    assert {item["owner"]["name"] for item in found} == {"Ana"}
    changes = ledger.page(f"wallets/{ledger.wallet_id}/credit-limits")["items"]
    assert [item["actor"] for item in changes] == [boss, operator, boss]


def test_what_the_system_did_and_what_has_no_wallet_is_shown_too(fresh_app: Flask) -> None:
    ledger = Ledger(fresh_app, "eur")
    body = {"defaultLimit": "1.00", "maxLimit": None}
    ledger.api.send("PUT", "/api/admin/credit-policies/EUR", ledger.admin, "eur", json=body)
    People(fresh_app).wallet(People(fresh_app).make(eur="member"), "eur")
    answer = ledger.api.get("/api/admin/audit-log?limit=2", ledger.admin, "eur")
    opened, policy = answer.json["items"]
    assert (opened["action"], opened["actor"]) == (
        "wallet.open",
        {"kind": "system", "id": None, "name": "system", "email": None},
    )
    assert (policy["action"], policy["owner"], policy["actor"]["name"]) == ("credit_policy.set", None, "Boss")


def test_times_in_a_state_end_with_z(ledger: Ledger, database: Database) -> None:
    """As they are stored now, and as release 0.2.0 stored them. A text that is no time in UTC stays as it is."""
    actor, action = Actor(ActorKind.USER, ledger.admin.user_id), f"test.t{uuid4().hex}"
    noon = datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=1)))
    entry = json.loads(entry_json(actor, action=action, wallet_id=ledger.wallet_id, after={"at": noon.astimezone(UTC)}))
    assert entry["after"] == {"at": "2026-01-31T11:00:00Z"}
    told = {
        "expires_at": "2026-01-31T11:00:00.5+00:00",
        "all": ["2026-01-31T11:00:00+00:00"],
        "at": "2026-01-31T11:00:00+01:00",
        "name": "x 11:00:00+00:00",
    }
    database.as_tenant(ledger.slug).execute("SELECT audit_note_v2(%s)", (Jsonb(entry | {"after": told}),))
    (shown,) = ledger.page(action=action)["items"]
    assert shown["after"] == {
        "expiresAt": "2026-01-31T11:00:00.5Z",
        "all": ["2026-01-31T11:00:00Z"],
        "at": "2026-01-31T11:00:00+01:00",
        "name": "x 11:00:00+00:00",
    }


def test_the_log_tells_its_total_if_asked(ledger: Ledger) -> None:
    page = ledger.page(count="true", limit=1, action="wallet.configure")
    assert (page["total"], page["isTotalExact"], len(page["items"])) == (3, True, 1)
