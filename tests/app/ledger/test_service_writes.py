"""What one payment writes, counted by PostgreSQL itself: a guard of the posting path that needs no quiet machine."""

from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from app.ledger.models import Movement
from app.ledger.service import post
from tenant_schemas.flask import tenant_context
from tenant_schemas.testing.plugin import Database
from tests.factories.application import running
from tests.factories.people import People

PAYMENTS = 300
MIN_HOT_SHARE = 0.9
# The primary key, (wallet, seq), (wallet, key), (wallet, time, seq), (time, wallet, seq). The others are partial:
# a plain payment is in none of them.
INDEX_ENTRIES = 5
# The primary key, and the numbers of what waits for its position.
EVENT_INDEX_ENTRIES = 2


@pytest.fixture
def wallet_ids(fresh_database: Database) -> list[UUID]:
    with running(fresh_database) as app:  # A session reports what it counted when it ends.
        people = People(app)
        return [people.wallet(people.make(km="member"), "km", balance_minor=100_000) for _ in range(10)]


@pytest.mark.both_servers
def test_a_payment_writes_one_row_and_updates_one_in_place(fresh_database: Database, wallet_ids: list[UUID]) -> None:
    superuser = fresh_database.as_superuser()
    superuser.execute("SET search_path TO km_schema")
    superuser.execute("VACUUM ANALYZE")
    await_end_of_sessions(superuser)
    before = written(superuser)
    with running(fresh_database) as app, app.app_context(), tenant_context("km"):
        for number in range(PAYMENTS):
            movement = Movement(type="payment", amount_minor=1, idempotency_key=uuid4().hex)
            post(wallet_ids[number % len(wallet_ids)], movement)
    await_end_of_sessions(superuser)
    after = written(superuser)
    counted = {name: after[name] - before[name] for name in after}
    hot, updated = counted.pop("hot updates"), counted["updates"]
    assert counted == {"inserts": PAYMENTS, "updates": PAYMENTS, "events": PAYMENTS, "in other tables": 0}
    assert hot >= MIN_HOT_SHARE * updated


def await_end_of_sessions(superuser: psycopg.Connection[Any]) -> None:
    """A session that was closed may still have to end, and reports what it counted when it does."""
    query = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND backend_type = 'client backend'"""
    for _ in range(500):
        superuser.execute("SELECT pg_stat_clear_snapshot()")
        if superuser.execute(query).fetchone() == (0,):
            return
        superuser.execute("SELECT pg_sleep(0.01)")


def written(superuser: psycopg.Connection[Any]) -> dict[str, int]:
    superuser.execute("SELECT pg_stat_clear_snapshot()")
    rows = superuser.execute(
        "SELECT relname, n_tup_ins, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables"
        " WHERE schemaname IN ('km_schema', 'shared')"
    )
    found = {name: counts for name, *counts in rows.fetchall()}
    (inserts, *_), (opened, updates, hot) = found.pop("wallet_transactions"), found.pop("wallets")
    events, *stamped = found.pop("events")
    others = opened + sum(stamped) + sum(sum(counts) for counts in found.values())
    return {
        **{"inserts": inserts, "updates": updates, "hot updates": hot, "events": events},
        "in other tables": others,
    }


def test_a_movement_has_an_entry_in_five_indexes_and_its_event_in_two(database: Database) -> None:
    query = """SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass
        AND (indpred IS NULL OR pg_get_expr(indpred, indrelid) = '(\"position\" IS NULL)')"""
    counted = [
        (database.as_superuser().execute(query, (f"km_schema.{table}",)).fetchone() or (0,))[0]
        for table in ("wallet_transactions", "events")
    ]
    assert counted == [INDEX_ENTRIES, EVENT_INDEX_ENTRIES]
