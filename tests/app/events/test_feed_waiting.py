"""The relay's question to all tenants at once: which have events that wait for their numbers?"""

from time import monotonic
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from flask import Flask

from app.ledger.service import post
from tenant_schemas.testing.plugin import Database
from tests.factories.feed import Feed, in_tenant, movement
from tests.factories.people import People

pytestmark = pytest.mark.both_servers
SCHEMAS = ["eur_schema", "km_schema"]


@pytest.fixture
def relay(fresh_database: Database) -> psycopg.Connection[Any]:
    return fresh_database.as_role("wallet_relay")


@pytest.fixture
def superuser(fresh_database: Database) -> psycopg.Connection[Any]:
    return fresh_database.as_superuser()


def waiting(relay: psycopg.Connection[Any], schema_names: list[str]) -> list[tuple[str, bool, bool]]:
    query = """SELECT schema_name, has_events, has_deliveries FROM shared.events_waiting_v1(%s)
        WHERE has_events OR has_deliveries"""
    return relay.execute(query, (schema_names,)).fetchall()


def make_events(app: Flask, *slugs: str) -> None:
    people = People(app)
    for slug in slugs:
        people.wallet(people.make(**{slug: "member"}), slug, balance_minor=100)


def test_who_has_events_without_a_number_is_named_until_they_are_numbered(
    fresh_app: Flask, relay: psycopg.Connection[Any]
) -> None:
    assert waiting(relay, SCHEMAS) == []
    make_events(fresh_app, "km")
    assert waiting(relay, SCHEMAS) == [("km_schema", True, False)]
    make_events(fresh_app, "eur")
    assert waiting(relay, ["km_schema"]) == [("km_schema", True, False)]
    for slug in ("eur", "km"):
        Feed(fresh_app, slug).stamp()
    assert waiting(relay, SCHEMAS) == []
    assert waiting(relay, []) == []


@pytest.mark.parametrize(
    "breaking",
    [
        "DROP SCHEMA eur_schema CASCADE",
        "DROP VIEW eur_schema.events_waiting",
        "ALTER TABLE eur_schema.events RENAME COLUMN n TO m; DROP VIEW eur_schema.events_waiting;"
        " CREATE VIEW eur_schema.events_waiting AS SELECT 1 / 0 AS has_events, false AS has_deliveries,"
        " false AS has_unpublished",
    ],
)
def test_a_schema_that_is_missing_or_behind_or_broken_keeps_no_other_from_its_answer(
    fresh_app: Flask, relay: psycopg.Connection[Any], superuser: psycopg.Connection[Any], breaking: str
) -> None:
    make_events(fresh_app, "eur", "km")
    superuser.execute(breaking.encode())
    assert waiting(relay, ["eur_schema", "no_schema", "km_schema"]) == [("km_schema", True, False)]


def test_a_locked_schema_is_left_out_and_nobody_waits_for_it(
    fresh_app: Flask, relay: psycopg.Connection[Any], superuser: psycopg.Connection[Any]
) -> None:
    make_events(fresh_app, "eur", "km")
    with superuser.transaction():
        superuser.execute("LOCK TABLE eur_schema.events IN ACCESS EXCLUSIVE MODE")
        began = monotonic()
        assert waiting(relay, SCHEMAS) == [("km_schema", True, False)]
        assert monotonic() - began < 2
    assert len(waiting(relay, SCHEMAS)) == 2


def test_the_question_keeps_no_lock_on_any_schema(
    fresh_app: Flask, relay: psycopg.Connection[Any], superuser: psycopg.Connection[Any]
) -> None:
    """A lock table has room for the tables of some hundred schemas, and an installation has thousands."""
    make_events(fresh_app, "eur", "km")
    query = """SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
        WHERE c.relnamespace IN ('eur_schema'::regnamespace, 'km_schema'::regnamespace)"""
    with relay.transaction():
        assert len(waiting(relay, SCHEMAS)) == 2
        assert superuser.execute(query).fetchone() == (0,)


def test_a_held_snapshot_hides_nothing(
    fresh_app: Flask, relay: psycopg.Connection[Any], superuser: psycopg.Connection[Any]
) -> None:
    """An order by transaction id would wait for it, in whichever database of the server it is."""
    make_events(fresh_app, "eur")
    with superuser.transaction():
        superuser.execute("SELECT pg_current_xact_id()")
        feed = Feed(fresh_app, "eur")
        (wallet_id,) = superuser.execute("SELECT id FROM eur_schema.wallets").fetchone() or (uuid4(),)
        feed.stamp()
        with in_tenant(fresh_app):
            post(wallet_id, movement("payment", 1))
        assert waiting(relay, SCHEMAS) == [("eur_schema", True, False)]
        assert len(feed.of(wallet_id)) == 3
