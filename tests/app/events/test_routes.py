"""The feed over HTTP: page by page, filtered, and waited for."""

import time
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.events import long_poll
from app.ledger.service import post
from app.limits.concurrency import HELD
from tenant_schemas.flask import connections
from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.feed import Feed, in_tenant, movement
from tests.factories.people import People, Person

PATH = "/api/admin/events"


@pytest.fixture
def auditor(people: People) -> Person:
    return people.make(eur="auditor")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_poll, "POLL_SECONDS", 0.02)


def get(app: Flask, person: Person, status: int = 200, slug: str = "eur", **query: Any) -> dict[str, Any]:
    """With a client of its own, so that threads can call it."""
    answer: TestResponse = Api(app).get(PATH, person, slug, query_string=query)
    assert answer.status_code == status, answer.text
    body: Any = answer.json
    return dict(body)


def pay(app: Flask, wallet_id: UUID, amount_minor: int = 1) -> None:
    with in_tenant(app):
        post(wallet_id, movement("payment", amount_minor))


def test_the_feed_is_read_page_by_page_and_goes_on(app: Flask, auditor: Person, feed: Feed, wallet_id: UUID) -> None:
    """The events have no numbers before: who pulls needs no relay."""
    for amount_minor in (1, 2):
        pay(app, wallet_id, amount_minor)
    query = {"walletId": wallet_id, "limit": 3}
    first = get(app, auditor, **query)
    second = get(app, auditor, **query, after=first["nextCursor"])
    assert [item["type"] for item in first["items"]] == [
        *("wallet.opened.v1", "wallet.deposit.posted.v1", "wallet.payment.posted.v1")
    ]
    assert [item["data"]["amount"] for item in second["items"]] == ["-0.02"]
    assert get(app, auditor, **query, after=second["nextCursor"])["items"] == []
    pay(app, wallet_id, 3)
    third = get(app, auditor, **query, after=second["nextCursor"])
    assert third["items"] == [event.body for event in feed.of(wallet_id)[-1:]]


def test_types_are_chosen_by_name(app: Flask, auditor: Person, wallet_id: UUID) -> None:
    pay(app, wallet_id)
    types = "wallet.payment.posted.v1,wallet.opened.v1"
    found = get(app, auditor, walletId=wallet_id, types=types)["items"]
    assert [item["type"] for item in found] == ["wallet.opened.v1", "wallet.payment.posted.v1"]
    assert get(app, auditor, 422, types="wallet.paid")["errors"][0]["code"] == "unknown_choice"


@pytest.mark.parametrize("wrong", [{"wait": 26}, {"wait": -1}, {"wait": "1.5"}, {"limit": 201}, {"after": "x-1"}])
def test_a_query_out_of_range_is_refused(app: Flask, auditor: Person, wrong: dict[str, Any]) -> None:
    (fault,) = get(app, auditor, 422, **wrong)["errors"]
    assert fault["field"] == next(iter(wrong))


def test_the_other_tenants_reader_sees_none_of_it(app: Flask, people: People, auditor: Person, wallet_id: UUID) -> None:
    other = people.make(km="admin")
    assert get(app, other, slug="km", walletId=wallet_id)["items"] == []
    cursor = get(app, auditor)["nextCursor"]
    assert get(app, other, 410, slug="km", after=cursor)["code"] == "feed_changed"
    get(app, other, 404, slug="eur")


def test_a_member_reads_no_feed_of_the_tenant(app: Flask, person: Person) -> None:
    get(app, person, 403)


def test_a_cursor_of_another_feed_or_of_trimmed_events_is_gone(fresh_app: Flask, fresh_database: Database) -> None:
    people = People(fresh_app)
    reader = people.make(eur="auditor")
    wallet_id = people.wallet(reader, "eur", balance_minor=10)
    start = get(fresh_app, reader, limit=1)["nextCursor"]
    pay(fresh_app, wallet_id)
    get(fresh_app, reader)
    superuser = fresh_database.as_superuser()
    superuser.execute("DELETE FROM eur_schema.events WHERE position <= 2")
    superuser.execute("UPDATE eur_schema.events_head SET trimmed_to = 2")
    gone = get(fresh_app, reader, 410, after=start)
    assert (gone["code"], gone["trimmedTo"]) == ("feed_trimmed", 2)
    assert len(get(fresh_app, reader)["items"]) == 1
    feed_id = uuid4()
    superuser.execute("UPDATE eur_schema.events_head SET feed_id = %s", (feed_id,))
    gone = get(fresh_app, reader, 410, after=start)
    assert (gone["code"], gone["feedId"]) == ("feed_changed", str(feed_id))


def test_movements_that_the_feed_keeps_no_longer_are_replayed_page_by_page(
    fresh_app: Flask, fresh_database: Database
) -> None:
    people = People(fresh_app)
    reader, api = people.make(eur="auditor"), Api(fresh_app)
    wallet_id = people.wallet(reader, "eur", balance_minor=10)
    for amount_minor in (1, 2):
        pay(fresh_app, wallet_id, amount_minor)
    told = [item for item in get(fresh_app, reader)["items"] if "posted" in item["type"]]
    superuser = fresh_database.as_superuser()
    superuser.execute("DELETE FROM eur_schema.events")
    superuser.execute("UPDATE eur_schema.events_head SET trimmed_to = position")
    query: dict[str, Any] = {"from": told[1]["time"], "limit": 1}
    found = []
    while query:
        page = api.get(f"{PATH}/replay", reader, "eur", query_string=query).json
        found += page["items"]
        query = query | {"cursor": page["nextCursor"]} if page["nextCursor"] else {}
    del told[1]["sequence"], told[2]["sequence"]
    assert found == [event | {"replay": True} for event in told[1:]]
    other = people.make(km="admin")
    assert api.get(f"{PATH}/replay", other, "km").json["items"] == []
    deposits = api.get(f"{PATH}/replay?types=wallet.deposit.posted.v1", reader, "eur").json["items"]
    assert [event["id"] for event in deposits] == [told[0]["id"]]


@pytest.mark.usefixtures("quick")
def test_who_waits_gets_the_next_event_when_it_comes(app: Flask, auditor: Person, wallet_id: UUID) -> None:
    query = {"walletId": wallet_id, "wait": 20}
    cursor = get(app, auditor, **query)["nextCursor"]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(get, app, auditor, **query, after=cursor)
        until_waiting(1)
        pay(app, wallet_id, 7)
        (event,) = waiting.result(5)["items"]
    assert event["data"]["amount"] == "-0.07"


@pytest.mark.usefixtures("quick")
def test_a_wait_ends_without_events_when_its_time_is_over(app: Flask, auditor: Person, wallet_id: UUID) -> None:
    """Events that the filters leave out end no wait, and the cursor has passed them."""
    cursor = last_cursor(app, auditor)
    pay(app, wallet_id)
    began = monotonic()
    answer = get(app, auditor, after=cursor, types="wallet.closed.v1", wait=1)
    assert 1 <= monotonic() - began < 5
    assert answer["items"] == []
    assert answer["nextCursor"] != cursor


def connections_in_use() -> int:
    """Of all tenants and the shared side."""
    return connections().shared.pool._store._in_use.total()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.usefixtures("quick")
def test_who_waits_holds_no_slot_and_no_connection(fresh_app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    people = People(fresh_app)
    reader = people.make(eur="admin")
    seen: list[tuple[bool, int]] = []
    sleep = time.sleep

    def observed(seconds: float) -> None:
        seen.append((HELD in long_poll.request.environ, connections_in_use()))
        sleep(seconds)

    monkeypatch.setattr(long_poll.time, "sleep", observed)
    get(fresh_app, reader, wait=1)
    assert set(seen) == {(False, 0)}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("share", ["AT_ONCE_OF_TENANT", "AT_ONCE_OF_CALLER"])
def test_more_waiting_requests_than_places_are_answered_at_once_and_told_to_ask_later(
    app: Flask, auditor: Person, monkeypatch: pytest.MonkeyPatch, share: str
) -> None:
    monkeypatch.setattr(long_poll, share, 0)
    began = monotonic()
    query = {"after": last_cursor(app, auditor), "wait": 20}
    answer = Api(app).get(PATH, auditor, "eur", query_string=query)
    assert monotonic() - began < 5
    assert (answer.json["items"], answer.headers["Retry-After"]) == ([], "1")
    assert "Retry-After" not in Api(app).get(PATH, auditor, "eur", query_string=query | {"wait": 0}).headers


def last_cursor(app: Flask, auditor: Person) -> str:
    page = get(app, auditor, limit=200)
    while page["items"]:
        page = get(app, auditor, limit=200, after=page["nextCursor"])
    return str(page["nextCursor"])


def until_waiting(count: int) -> None:
    deadline = monotonic() + 5
    while long_poll.WAITING.open < count:
        assert monotonic() < deadline
        long_poll.time.sleep(0.01)
