"""The cutover: the service continues, and no session writes into the replaced schema, however early it began."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from uuid import uuid4

import psycopg
import pytest
from flask import Flask

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.errors import TenantBusy
from tenant_schemas.restore import cutover
from tenant_schemas.restore.restore import restore
from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.application import running
from tests.factories.bundles import SLUG, Furnished, audit, content_of, destination, post, take, world
from tests.factories.people import People, Person

pytestmark = pytest.mark.both_servers

DEPOSIT = "SELECT wallet_post_v2(%s, 'deposit', 1, gen_random_uuid()::text, NULL, NULL, NULL, NULL, NULL, NULL)"

# Refused for lack of a privilege, or because an invisible object is not found.
REFUSED = (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedTable)


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_a_connection_that_was_open_writes_no_more_into_the_replaced_schema(
    fresh_database: Database, furnished: Furnished, bundle: Bundle
) -> None:
    """A prepared statement may keep the old objects; the privileges on those objects stop it."""
    tenant = fresh_database.as_tenant(SLUG)
    for _ in range(2):
        tenant.execute(DEPOSIT, (furnished.wallet_id,), prepare=True)
        tenant.execute("SELECT count(*) FROM wallets", prepare=True)
    restore(destination(fresh_database), bundle)
    before = content_of(fresh_database, "shop_schema")
    for statement, params in ((DEPOSIT, (furnished.wallet_id,)), ("SELECT count(*) FROM wallets", None)):
        with pytest.raises(REFUSED):
            tenant.execute(statement, params, prepare=True)
    assert content_of(fresh_database, "shop_schema") == before


def test_a_posting_that_waited_for_the_swap_is_refused_and_not_lost_in_the_replaced_schema(
    fresh_database: Database,
    furnished: Furnished,
    bundle: Bundle,
    aside: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its privilege to call the function was checked earlier. The function writes as the owner, so the owner has no
    privilege left.
    """
    monkeypatch.setattr(cutover, "_LOCK_TIMEOUT_MS", 60_000)
    writing, waiting = fresh_database.as_tenant(SLUG), fresh_database.as_tenant(SLUG)
    writing.execute("BEGIN")
    writing.execute(DEPOSIT, (furnished.wallet_id,))
    restoring = aside.submit(restore, destination(fresh_database), bundle)
    await_waiting(fresh_database, 1)
    posting = aside.submit(waiting.execute, DEPOSIT, (furnished.wallet_id,))
    await_waiting(fresh_database, 2)
    writing.execute("COMMIT")
    restoring.result(timeout=30)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        posting.result(timeout=30)
    (ledger,) = (each for each in bundle.manifest.tables if each.name == "wallet_transactions")
    assert len(content_of(fresh_database, "shop_schema")["wallet_transactions"]) == ledger.rows + 1
    assert audit(fresh_database, SLUG) == []


def await_waiting(database: Database, count: int) -> None:
    """Until this number of sessions waits for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    deadline = time.monotonic() + 30
    while database.as_superuser().execute(query).fetchone() != (count,):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_swap_never_costs_a_payment_that_waits_for_it_in_a_circle(
    fresh_database: Database, furnished: Furnished, bundle: Bundle, aside: ThreadPoolExecutor
) -> None:
    """A payment that has locked the last table and then wants the first is let through; the cutover tries again."""
    writing = fresh_database.as_tenant(SLUG)
    writing.execute("BEGIN")
    writing.execute("""SELECT audit_note_v1('{"action": "look"}')""")
    restoring = aside.submit(restore, destination(fresh_database), bundle)
    await_waiting(fresh_database, 1)
    writing.execute(DEPOSIT, (furnished.wallet_id,))
    writing.execute("COMMIT")
    assert restoring.result(timeout=30).replaced_schema == "shop_schema"


def test_a_tenant_that_is_never_at_rest_is_not_replaced(
    fresh_database: Database, furnished: Furnished, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutover, "_SWAP_TIMEOUT_SECONDS", 1)
    writing = fresh_database.as_tenant(SLUG)
    writing.execute("BEGIN")
    writing.execute(DEPOSIT, (furnished.wallet_id,))
    before = world(fresh_database)
    with pytest.raises(TenantBusy):
        restore(destination(fresh_database), bundle)
    writing.execute("COMMIT")
    assert world(fresh_database) == before


@pytest.fixture(params=["own", "shared"])
def serving(fresh_database: Database, request: pytest.FixtureRequest) -> Iterator[Flask]:
    """The service in both login modes."""
    with running(fresh_database, tenant_logins=request.param) as app:
        yield app


def test_the_service_goes_on_and_sees_what_was_restored_at_once(
    fresh_database: Database, serving: Flask, furnished: Furnished, tmp_path: Path, aside: ThreadPoolExecutor
) -> None:
    """Requests fail only with the advice to retry, and no other tenant is affected."""
    people = People(serving)
    neighbour = people.make(eur="member")
    people.wallet(neighbour, "eur", balance_minor=100)
    was = Api(serving).get("/api/wallet", furnished.member, SLUG).get_json()
    bundle = take(fresh_database, SLUG, tmp_path)
    post(fresh_database, furnished, 777)
    stop = Event()
    asking = aside.submit(keep_asking, Api(serving), furnished.member, SLUG, stop)
    looking = aside.submit(keep_asking, Api(serving), neighbour, "eur", stop)
    restore(destination(fresh_database), bundle)
    assert Api(serving).get("/api/wallet", furnished.member, SLUG).get_json() == was
    stop.set()
    assert {status for status, _ in asking.result()} <= {200, 503}
    assert set(looking.result()) == {(200, "1.00")}


def keep_asking(api: Api, person: Person, slug: str, stop: Event) -> list[tuple[int, str | None]]:
    answers = []
    while not stop.is_set():
        answer = api.get("/api/wallet", person, slug)
        answers.append((answer.status_code, answer.get_json().get("balance")))
    return answers


def test_a_payment_that_was_confirmed_is_in_the_old_books_or_in_the_new(
    fresh_database: Database, serving: Flask, furnished: Furnished, bundle: Bundle, aside: ThreadPoolExecutor
) -> None:
    """Members pay during the restore: payments confirmed before the cutover are in the retired schema, later ones in
    the new schema.
    """
    stop = Event()
    paying = [aside.submit(keep_paying, Api(serving), furnished.member, stop) for _ in range(3)]
    for _ in range(2):
        restore(destination(fresh_database), bundle)
    stop.set()
    answers = [answer for each in paying for answer in each.result()]
    assert {status for status, _ in answers} <= {201, 503}
    schemas = fresh_database.as_superuser().execute("SELECT schema_name FROM shared.spare_schemas").fetchall()
    found = [name for (name,) in schemas] + [fresh_database.tenant(SLUG).schema_name]
    books = [row for name in found for row in content_of(fresh_database, name)["wallet_transactions"]]
    assert [key for status, key in answers if status == 201 and sum(key in row for row in books) != 1] == []
    assert audit(fresh_database, SLUG) == []


def keep_paying(api: Api, person: Person, stop: Event) -> list[tuple[int, str]]:
    answers = []
    while not stop.is_set():
        key = uuid4().hex
        answer = api.post("/api/wallet/payments", person, SLUG, key=key, json={"amount": "0.01"})
        answers.append((answer.status_code, key))
    return answers
