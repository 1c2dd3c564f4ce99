"""A background worker marks expired holds while the service runs; it logs and skips failures."""

import json
from threading import Event
from threading import enumerate as running_threads
from time import monotonic, sleep
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from app.holds.expiry_worker import start_expiry_worker, sweep
from tenant_schemas.flask import connections
from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.people import People

SLUGS = ("eur", "km")


def make_due_hold(app: Flask, database: Database, slug: str) -> str:
    """An expired hold of 5.00 whose row is still active."""
    people = People(app)
    person = people.make(**{slug: "member"})
    people.wallet(person, slug, balance_minor=1_000)
    hold: Any = Api(app).post("/api/wallet/holds", person, slug, json={"amount": "5.00"}).json
    change = f"UPDATE {slug}_schema.holds SET expires_at = now() - interval '1 second' WHERE id = %s"
    database.as_superuser().execute(change.encode(), (hold["id"],))
    return str(hold["id"])


def noted(database: Database, slug: str, hold_id: str) -> tuple[str, int]:
    query = (
        f"SELECT h.status, w.held_minor FROM {slug}_schema.holds h JOIN {slug}_schema.wallets w ON w.id = h.wallet_id"
        " WHERE h.id = %s"
    )
    found: tuple[str, int] = database.as_superuser().execute(query.encode(), (UUID(hold_id),)).fetchall()[0]
    return found


def until(true: Any) -> bool:
    deadline = monotonic() + 10
    while not true() and monotonic() < deadline:
        sleep(0.02)
    return bool(true())


def test_the_timer_notes_in_every_tenant_at_hand_what_is_over(app: Flask, database: Database) -> None:
    holds = {slug: make_due_hold(app, database, slug) for slug in SLUGS}
    stop = start_expiry_worker(app, 0.05)
    try:
        assert until(lambda: all(noted(database, slug, holds[slug]) == ("expired", 0) for slug in SLUGS))
    finally:
        stop.set()
    assert until(lambda: all(thread.name != "hold-expiry" for thread in running_threads()))


def test_no_timer_runs_if_it_is_told_not_to(app: Flask) -> None:
    assert isinstance(start_expiry_worker(app, 0), Event)
    assert all(thread.name != "hold-expiry" for thread in running_threads())


def test_a_sweep_opens_no_connection(fresh_app: Flask, fresh_database: Database) -> None:
    hold_id = make_due_hold(fresh_app, fresh_database, "eur")
    with fresh_app.app_context():
        own = connections()
        own.retire(fresh_database.tenant("eur").id)
        before = own.open_count
        sweep()
        assert own.open_count == before
    assert noted(fresh_database, "eur", hold_id) == ("active", 500)


def test_a_wallet_in_use_is_left_for_the_next_sweep(app: Flask, database: Database) -> None:
    busy, idle = (make_due_hold(app, database, "eur") for _ in range(2))
    superuser = database.as_superuser()
    with superuser.transaction(), app.app_context():
        query = "SELECT FROM eur_schema.wallets w JOIN eur_schema.holds h ON h.wallet_id = w.id WHERE h.id = %s"
        superuser.execute(f"{query} FOR UPDATE OF w".encode(), (busy,))
        sweep()
        found = noted(database, "eur", busy), noted(database, "eur", idle)
    assert found == (("active", 500), ("expired", 0))
    with app.app_context():
        sweep()
    assert noted(database, "eur", busy) == ("expired", 0)


def test_a_tenant_that_fails_stops_no_other_and_is_logged(
    fresh_app: Flask, fresh_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    due = {slug: make_due_hold(fresh_app, fresh_database, slug) for slug in SLUGS}
    fresh_database.as_superuser().execute("DROP FUNCTION eur_schema.holds_expire_v1")
    with fresh_app.app_context():
        sweep()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "hold" in line]
    assert [(line["event"], line["tenant"]) for line in lines if line["event"].startswith("hold")] == [
        ("hold_expiry_failed", "eur"),
        ("holds_expired", "km"),
    ]
    assert noted(fresh_database, "km", due["km"]) == ("expired", 0)
    said = fresh_app.test_cli_runner().invoke(args=["wallets", "expire-holds"])
    assert (said.exit_code, "eur: failed" in said.output, "km: 0 wallets" in said.output) == (1, True, True)


def test_what_is_archived_is_left_as_it_is(fresh_app: Flask, fresh_database: Database) -> None:
    """Its auditor has just read there, so the process has a connection for it."""
    hold_id = make_due_hold(fresh_app, fresh_database, "eur")
    auditor = People(fresh_app).make(eur="auditor")
    fresh_database.as_superuser().execute("UPDATE shared.tenants SET status = 'archived' WHERE slug = 'eur'")
    assert Api(fresh_app).get("/api/admin/wallets", auditor, "eur").status_code == 200
    with fresh_app.app_context():
        sweep()
    assert noted(fresh_database, "eur", hold_id)[0] == "active"
