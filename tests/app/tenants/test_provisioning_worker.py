"""A requested tenant is created once and whole, or not at all with the reason, also if processes are killed."""

import signal
import subprocess
import sys
from threading import enumerate as running_threads
from time import monotonic, sleep
from typing import Any

import psycopg
import pytest

from app import create_app
from app.config import ROOT
from app.tenants.provisioning_worker import EXTENSION as PROVISIONER
from app.tenants.provisioning_worker import start_provisioner
from tenant_schemas.flask import EXTENSION
from tenant_schemas.testing.plugin import Database, assert_isolated
from tests.app.tenants.conftest import TENANTS, Installation, asked, became, remains, work_off
from tests.conftest import settings_for


def until(true: Any) -> bool:
    deadline = monotonic() + 20
    while not true() and monotonic() < deadline:
        sleep(0.05)
    return bool(true())


# --- made ---------------------------------------------------------------------------------------------------------


def test_a_tenant_that_was_asked_for_works_and_reaches_no_other(own: Installation, slug: str) -> None:
    location = asked(own, slug, name="Francs", currencies=["USD"], locale="bs-BA", settings={"maxBodyBytes": 9_000})
    assert remains(own.database, slug) == [], "nothing is made within the request"
    work_off(own.app)
    told = became(own, location)
    assert (told["status"], told["error"], told["tenantId"]) == ("done", None, slug)
    assert told["finishedAt"] > told["requestedAt"]
    tenant = own.database.tenant(slug)
    assert (tenant.name, tenant.settings) == (
        "Francs",
        {"currency": "CHF", "currencies": ["CHF", "USD"], "locale": "bs_BA", "max_body_bytes": 9_000},
    )
    member = own.people.make(**{slug: "member"})
    assert own.api.get("/api/wallet", member, slug).json["currency"] == "CHF"
    assert_isolated(own.database, slug, "eur")
    assert_isolated(own.database, "eur", slug)


def test_where_tenants_share_a_login_the_new_one_does_too(fresh_database: Database, slug: str) -> None:
    app = create_app(settings_for(fresh_database, tenant_logins="shared"))
    own = Installation(app, fresh_database)
    asked(own, slug)
    work_off(app)
    own.people.wallet(own.people.make(**{slug: "member"}), slug)
    own.people.wallet(own.people.make(eur="member"), "eur")
    found = own.api.get("/api/admin/wallets", own.operator).json
    app.extensions[EXTENSION].close()
    assert ([item["tenantId"] for item in found["items"]], found["unavailable"]) == (["eur", slug], [])


def test_the_first_entry_of_its_log_says_who_asked(own: Installation, slug: str) -> None:
    headers = {"X-Request-Id": "req-9"}
    seen = {"environ_overrides": {"REMOTE_ADDR": "203.0.113.7"}}
    body = {"id": slug, "currency": "CHF"}
    own.api.send("POST", TENANTS, own.operator, json=body, headers=headers, **seen)
    work_off(own.app)
    look, first = own.api.get("/api/admin/audit-log", own.operator, slug).json["items"]
    assert look["action"] == "look"
    assert (first["seq"], first["action"], first["actorKind"]) == (1, "tenant.provision", "operator")
    assert (first["actorId"], first["requestId"]) == (str(own.operator.user_id), "req-9")
    assert (first["address"], first["after"]["settings"]) == ("203.0.113.7", {"currency": "CHF"})
    audit = own.app.test_cli_runner().invoke(args=["wallets", "audit", "--tenant", slug])
    assert audit.exit_code == 0, audit.output


def test_the_thread_of_a_serving_process_makes_it_soon(own: Installation, slug: str) -> None:
    """Without being woken it would look once a day."""
    stop = start_provisioner(own.app, seconds=86_400)
    try:
        location = asked(own, slug)
        assert until(lambda: became(own, location)["status"] == "done")
    finally:
        stop.set()
        own.app.extensions[PROVISIONER].wake()
    assert until(lambda: all(thread.name != "provisioner" for thread in running_threads()))


def test_what_another_process_was_asked_for_is_made_too(own: Installation, slug: str) -> None:
    location = asked(own, slug)
    other = create_app(settings_for(own.database))
    work_off(other)
    other.extensions[EXTENSION].close()
    assert became(own, location)["status"] == "done"


def test_it_takes_no_connection_of_the_service(fresh_database: Database, slug: str) -> None:
    app = create_app(settings_for(fresh_database, max_connections=3, connection_wait_seconds=0.1))
    own = Installation(app, fresh_database)
    location = asked(own, slug)
    shared = app.extensions[EXTENSION].shared
    with shared.begin() as connection:
        connection.exec_driver_sql("SELECT 1")
        work_off(app)
    assert became(own, location)["status"] == "done"
    app.extensions[EXTENSION].close()


# --- not made -----------------------------------------------------------------------------------------------------


def test_a_request_that_fails_says_why_and_leaves_nothing_and_the_next_one_is_made(
    own: Installation, slug: str
) -> None:
    other = f"{slug}b"
    own.database.as_superuser().execute(f"CREATE SCHEMA {slug}_schema".encode())
    bad, good = asked(own, slug), asked(own, other)
    work_off(own.app)
    told = became(own, bad)
    assert told["status"] == "failed"
    assert told["error"] == f"Schema '{slug}_schema' exists and belongs to no tenant: choose another name."
    assert remains(own.database, slug) == ["schema"]
    assert became(own, good)["status"] == "done"


def test_a_failure_that_nobody_foresaw_shows_nothing_from_inside(own: Installation, slug: str) -> None:
    own.database.as_superuser().execute("REVOKE CREATE ON DATABASE " + own.database.name + " FROM wallet_owner")
    location = asked(own, slug)
    work_off(own.app)
    told = became(own, location)
    assert told["status"] == "failed"
    assert told["error"] == "The tenant could not be created. The service's log has the reason under this id."
    assert remains(own.database, slug) == []
    own.database.as_superuser().execute("GRANT CREATE ON DATABASE " + own.database.name + " TO wallet_owner")
    location = asked(own, slug)
    work_off(own.app)
    assert became(own, location)["status"] == "done", "the same may be asked for again"


def test_what_failed_is_logged_without_its_statement(
    own: Installation, slug: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of the statements contains the verifier of the new login's password."""
    location = asked(own, slug)
    own.database.as_superuser().execute("ALTER ROLE wallet_migrator NOCREATEROLE")
    try:
        work_off(own.app)
    finally:
        own.database.as_superuser().execute("ALTER ROLE wallet_migrator CREATEROLE")
    assert became(own, location)["status"] == "failed"
    said = capsys.readouterr()
    assert "provisioning_failed" in said.out
    assert "permission denied to create role" in said.out
    assert "CREATE ROLE" not in said.out + said.err


def test_a_process_killed_in_the_middle_leaves_nothing_and_another_makes_it(own: Installation, slug: str) -> None:
    location = asked(own, slug)
    blocker = psycopg.connect(own.database.url())
    # The new tenant's tables refer to users, so it has its role and its schema when it comes to wait here.
    blocker.execute("LOCK TABLE shared.users IN ROW EXCLUSIVE MODE")
    victim = _worker(own.database)
    try:
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'shared.users'::regclass"
        superuser = own.database.as_superuser()
        assert until(lambda: superuser.execute(waits).fetchall() == [(1,)])
        victim.send_signal(signal.SIGKILL)
        victim.wait(timeout=10)
    finally:
        victim.kill()
        blocker.close()
    at_it = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'wallet_migrator' AND datname = %s"
    assert until(lambda: superuser.execute(at_it, (own.database.name,)).fetchall() == [(0,)])
    assert remains(own.database, slug) == []
    assert became(own, location)["status"] == "pending"
    work_off(own.app)
    assert became(own, location)["status"] == "done"
    assert len(remains(own.database, slug)) == 3


def _worker(database: Database) -> subprocess.Popen[bytes]:
    """Another process at work."""
    code = (
        "import sys; from types import SimpleNamespace; from app import create_app\n"
        "from tests.conftest import settings_for\n"
        "app_url, admin_url, tenant_secret = sys.argv[1:]\n"
        "told = SimpleNamespace(app_url=app_url, admin_url=admin_url, tenant_secret=tenant_secret,\n"
        "    roles=SimpleNamespace(relay=''), url=lambda _: '')\n"
        "app = create_app(settings_for(told))\n"
        "with app.app_context(): app.extensions['provisioner'].work_off()"
    )
    told = (database.app_url, database.admin_url, database.tenant_secret)
    return subprocess.Popen([sys.executable, "-c", code, *told], cwd=ROOT)


def test_two_processes_make_one_at_a_time(own: Installation, slug: str) -> None:
    """The second process leaves all work to the first, including the next request."""
    locations = [asked(own, f"{slug}{letter}") for letter in "ab"]
    blocker = psycopg.connect(own.database.url())
    blocker.execute("LOCK TABLE shared.users IN ROW EXCLUSIVE MODE")
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'shared.users'::regclass"
    superuser = own.database.as_superuser()
    first = _worker(own.database)
    try:
        assert until(lambda: superuser.execute(waits).fetchall() == [(1,)])
        work_off(own.app)
        assert [became(own, location)["status"] for location in locations] == ["pending", "pending"]
    finally:
        blocker.close()
        assert first.wait(timeout=30) == 0
    assert [became(own, location)["status"] for location in locations] == ["done", "done"]
