"""Unexpected fields grant nothing: not to the caller, to another user or to another tenant.

Every route that takes a body is sent its valid body with one more field, named as in the API or as in the database,
with the value that an attacker would choose.
"""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import refused_at
from tests.app.api.test_requests_bad_input import OVER_ROUTES, OVER_TENANTS, ROUTES, Route, World

OTHER = {"eur": "km", "km": "eur"}
WRITTEN = ("wallets", "wallet_transactions", "ledger_entries", "holds", "orders", "order_payments", "credit_policies")
SHARED = ("users", "memberships", "tenants", "api_keys", "sessions", "refresh_tokens", "provisionings")
SHARED += ("invitations", "account_mails", "second_factors", "recovery_codes")
# A route may describe a field of such a name; every other such field is refused.
FIELDS = ("tenantId", "tenant_id", "tenant", "tenantRole", "tenant_role", "schemaName", "schema_name", "settings")
FIELDS += ("userId", "user_id", "adminId", "admin_id", "actorId", "actorKind", "isOperator", "is_operator", "status")
FIELDS += ("balance", "balance_minor", "balanceMinor", "balanceAfter", "held_minor", "depositBalance", "creditUsed")
FIELDS += ("walletId", "id", "seq", "hash", "createdAt", "createdBy", "secretHash", "passwordHash", "password_hash")


@pytest.fixture(scope="module")
def world(app: Flask, database: Database) -> World:
    return World(app, database)


def tables(slug: str) -> list[str]:
    return [f"{slug}_schema.{table}" for slug in (slug, OTHER[slug]) for table in WRITTEN] + [
        f"shared.{table}" for table in SHARED
    ]


@pytest.fixture(scope="module")
def eye(database: Database) -> psycopg.Connection:
    return database.as_superuser()


@pytest.fixture
def unchanged(world: World, eye: psycopg.Connection, slug: str) -> Iterator[World]:
    """The world, in which no row may have changed at the end of the test."""

    def rows() -> dict[str, Any]:
        query = "SELECT md5(string_agg(r::text, ';' ORDER BY r::text)) FROM {} r"
        return {table: eye.execute(query.format(table)).fetchone() for table in tables(slug)}  # type: ignore[arg-type]

    before = rows()
    yield world
    assert rows() == before


def attack_values(world: World, slug: str, name: str) -> list[Any]:
    """The values that an attacker would choose for the field."""
    other = OTHER[slug]
    if "tenant" in name or "schema" in name:
        return [other, f"tenant_{other}", f"{other}_schema"]
    if "balance" in name.lower() or "minor" in name.lower() or name in {"creditUsed", "seq"}:
        return ["1000000.00", 100_000_000]
    if name in {"isOperator", "is_operator"}:
        return [True]
    if name == "status":
        return ["active"]
    return [str(world.other.user_id), str(world.wallet[other]), str(uuid4())]


def asks_for(route: Route, name: str) -> bool:
    return name in route.body or name in route.fields or name in route.also


@OVER_ROUTES
@OVER_TENANTS
def test_a_field_that_was_not_asked_for_is_refused_whatever_it_says(unchanged: World, route: Route, slug: str) -> None:
    sent = [
        (name, value) for name in FIELDS if not asks_for(route, name) for value in attack_values(unchanged, slug, name)
    ]
    assert len(sent) > len(FIELDS) / 2
    wrong = {(name, str(value)): unchanged.answer(route, slug, **{name: value}) for name, value in sent}
    assert wrong == {(name, str(value)): refused_at(name, "unknown_field") for name, value in sent}


NESTED = tuple(route for route in ROUTES if "items" in route.body)


@pytest.mark.parametrize("route", NESTED, ids=str)
@OVER_TENANTS
def test_nor_is_one_inside_of_an_item_taken(unchanged: World, route: Route, slug: str) -> None:
    assert len(NESTED) > 1
    for name in ("tenantId", "userId", "adminId", "balance", "id", "price", "seq"):
        body = unchanged.body(route, slug)
        body["items"][0][name] = attack_values(unchanged, slug, name)[0]
        answer = unchanged.send_text(route, slug, json.dumps(body))
        faults = answer.get_json(force=True)["errors"]
        assert (answer.status_code, [fault["code"] for fault in faults]) == (422, ["unknown_field"]), name
        assert faults[0]["field"].endswith(f".{name}")
