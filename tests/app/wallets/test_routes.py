"""A member's own wallet and an admin's wallets of a tenant, over HTTP and in both tenants."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of
from tests.factories.api import Api
from tests.factories.people import People, Person

OVER_TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])
CURRENCY = {"eur": "EUR", "km": "BAM"}
OTHER = {"eur": "km", "km": "eur"}


@pytest.fixture
def admin(people: People) -> Person:
    return people.make(name="Admin", eur="admin", km="admin")


def wallets_of(database: Database, slug: str, user_id: UUID) -> int:
    query = f"SELECT count(*) FROM {slug}_schema.wallets WHERE user_id = %s"
    row = database.as_superuser().execute(query, (user_id,)).fetchone()
    return int(row[0]) if row else 0


# --- my own --------------------------------------------------------------------------------------------------------


@OVER_TENANTS
def test_amounts_are_shown_as_deposit_credit_and_what_is_left(api: Api, people: People, slug: str) -> None:
    person = people.make(eur="member", km="member")
    people.wallet(person, slug, balance_minor=1_000, credit_limit_minor=500)
    api.post("/api/wallet/payments", person, slug, json={"amount": "12.05"})
    wallet = api.get("/api/wallet", person, slug).json
    shown = {name: wallet[name] for name in ("balance", "depositBalance", "creditLimit", "creditUsed", "available")}
    assert shown == {
        "balance": "-2.05",
        "depositBalance": "0.00",
        "creditLimit": "5.00",
        "creditUsed": "2.05",
        "available": "2.95",
    }


# --- an admin's list -----------------------------------------------------------------------------------------------


def walk(api: Api, person: Person, slug: str, query: str = "", limit: int = 2) -> Iterator[dict[str, Any]]:
    """Every item of the list, page by page."""
    cursor = ""
    for _ in range(100):
        page = api.get(f"/api/admin/wallets?limit={limit}{query}{cursor}", person, slug)
        assert page.status_code == 200, page.text
        assert len(page.json["items"]) <= limit
        yield from page.json["items"]
        if page.json["nextCursor"] is None:
            return
        assert len(page.json["items"]) == limit, "only the last page may be short"
        cursor = f"&cursor={quote(page.json['nextCursor'])}"
    pytest.fail("the pages never end")


def test_every_wallet_is_on_one_page_once_the_oldest_first(fresh_app: Flask, fresh_database: Database) -> None:
    """Also with wallets opened at the same moment, and with a full last page."""
    api, people = Api(fresh_app), People(fresh_app)
    admin = people.make(name="Admin", eur="admin", km="admin")
    opened: dict[str, list[str]] = {"eur": [], "km": []}
    for slug, wallets in opened.items():
        wallets += [str(people.wallet(people.make(eur="member", km="member"), slug)) for _ in range(4)]
    for limit in (1, 2, 3, 4, 5):
        for slug, wallets in opened.items():
            assert [item["id"] for item in walk(api, admin, slug, limit=limit)] == wallets
    superuser = fresh_database.as_superuser()
    superuser.execute("UPDATE km_schema.wallets SET opened_at = '2026-01-01T00:00:00.123456Z'")
    for limit in (1, 2, 3):
        assert [item["id"] for item in walk(api, admin, "km", limit=limit)] == sorted(opened["km"])


@OVER_TENANTS
def test_a_wallet_in_the_list_says_whose_it_is(api: Api, people: People, admin: Person, slug: str) -> None:
    name = f"Ana {uuid4().hex}"
    person = people.make(name=name, eur="member", km="member")
    people.wallet(person, slug, balance_minor=5, credit_limit_minor=7)
    people.wallet(person, OTHER[slug], balance_minor=99)
    (item,) = walk(api, admin, slug, f"&q={quote(name)}")
    owner = {"id": str(person.user_id), "email": person.email, "name": name, "removedAt": None}
    assert item == {**api.get("/api/wallet", person, slug).json, "owner": owner}
    assert item["available"] == "0.12"


@OVER_TENANTS
def test_the_wallet_of_a_former_member_is_listed_with_the_name_until_it_is_forgotten(
    api: Api, people: People, database: Database, slug: str
) -> None:
    """The money stays in any case."""
    admin = people.make(eur="admin", km="admin")
    person = people.make(name=f"Gone {uuid4().hex}", eur="member", km="member")
    wallet_id = str(people.wallet(person, slug))
    superuser = database.as_superuser()
    superuser.execute("DELETE FROM shared.memberships WHERE user_id = %s", (person.user_id,))
    (item,) = walk(api, admin, slug, f"&q={person.email}")
    owner = item["owner"]
    assert (item["id"], owner["email"], bool(owner["removedAt"])) == (wallet_id, person.email, True)
    superuser.execute("DELETE FROM shared.former_members WHERE user_id = %s", (person.user_id,))
    (item,) = [item for item in walk(api, admin, slug, limit=200) if item["id"] == wallet_id]
    assert item["owner"] == {"id": str(person.user_id), "email": None, "name": None, "removedAt": None}
    assert list(walk(api, admin, slug, f"&q={person.email}")) == []


CROWD = ["Ana 100%", "ana_maria", "Đorđe Anastas", "a/b", "c\\d", "O'Neil"]
SEARCHES = {
    "ana": ["Ana 100%", "ana_maria", "Đorđe Anastas"],
    "ANA": ["Ana 100%", "ana_maria", "Đorđe Anastas"],
    "%": ["Ana 100%"],
    "_": ["ana_maria"],
    "0%": ["Ana 100%"],
    "a%a": [],
    "a_a": [],
    "/": ["a/b"],
    "\\": ["c\\d"],
    "\\_": [],
    "'": ["O'Neil"],
    "' OR '1'='1": [],
    "đorđe": ["Đorđe Anastas"],
}


@OVER_TENANTS
def test_a_search_finds_parts_of_names_and_takes_nothing_for_a_pattern(
    api: Api, people: People, admin: Person, slug: str
) -> None:
    crowd = {people.make(name=name, eur="member", km="member"): name for name in CROWD}
    wallets = {str(people.wallet(person, slug)): name for person, name in crowd.items()}
    found = {
        q: [wallets.get(item["id"]) for item in walk(api, admin, slug, f"&q={quote(q, safe='')}", limit=200)]
        for q in SEARCHES
    }
    assert {q: sorted(filter(None, names)) for q, names in found.items()} == SEARCHES
    assert None not in found["đorđe"], "no other member has that name"


@OVER_TENANTS
def test_a_search_finds_part_of_an_address(api: Api, people: People, admin: Person, slug: str) -> None:
    person = people.make(eur="member", km="member")
    wallet_id = str(people.wallet(person, slug))
    for part in (person.email, person.email[3:20].upper(), person.email.split("@")[0]):
        assert [item["id"] for item in walk(api, admin, slug, f"&q={part}")] == [wallet_id]
    assert list(walk(api, admin, OTHER[slug], f"&q={person.email}")) == []


@OVER_TENANTS
def test_a_list_by_status_holds_that_status_alone(api: Api, people: People, admin: Person, slug: str) -> None:
    mark = uuid4().hex
    expected = {}
    for status in ("active", "frozen", "closed"):
        wallet_id = people.wallet(people.make(name=f"{mark} {status}", eur="member", km="member"), slug)
        if status != "active":
            path = f"/api/admin/wallets/{wallet_id}"
            assert api.patch(path, admin, slug, if_match='"1"', json={"status": status}).status_code == 200
        expected[status] = [str(wallet_id)]
    for status, wallet_ids in expected.items():
        items = list(walk(api, admin, slug, f"&q={mark}&status={status}", limit=1))
        assert [item["id"] for item in items] == wallet_ids
        assert [item["status"] for item in items] == [status]


def test_a_list_with_nothing_in_it_is_an_empty_page(api: Api, admin: Person) -> None:
    response = api.get(f"/api/admin/wallets?q={uuid4().hex}", admin, "eur")
    assert response.json == {"items": [], "nextCursor": None}


def test_wallets_are_found_by_currency_and_member_from_both_ends_with_a_total(
    api: Api, people: People, admin: Person
) -> None:
    person = people.make(eur="member")
    wallets = [str(people.wallet(person, "eur", currency=currency)) for currency in ("EUR", "USD")]
    whose = f"&userId={person.user_id}"
    assert [item["id"] for item in walk(api, admin, "eur", whose, limit=1)] == wallets
    assert [item["id"] for item in walk(api, admin, "eur", f"{whose}&sort=-openedAt", limit=1)] == wallets[::-1]
    assert [item["id"] for item in walk(api, admin, "eur", f"{whose}&currency=USD")] == wallets[1:]
    page = api.get(f"/api/admin/wallets?limit=1&count=true{whose}", admin, "eur").json
    assert (page["total"], page["isTotalExact"], len(page["items"])) == (2, True, 1)


def test_one_wallet_says_whose_it_is_before_and_after_a_change(api: Api, people: People, admin: Person) -> None:
    person = people.make(name="Ana", eur="member")
    path = f"/api/admin/wallets/{people.wallet(person, 'eur')}"
    told = api.get(path, admin, "eur").json
    assert told["owner"] == {"id": str(person.user_id), "email": person.email, "name": "Ana", "removedAt": None}
    changed = api.patch(path, admin, "eur", if_match='"1"', json={"status": "frozen"}).json
    assert changed == told | {"status": "frozen", "version": 2}


# --- opening for a member ------------------------------------------------------------------------------------------


@OVER_TENANTS
def test_an_admin_opens_a_members_wallet_once(api: Api, people: People, admin: Person, slug: str) -> None:
    person = people.make(eur="member", km="member")
    first = api.post("/api/admin/wallets", admin, slug, json={"userId": str(person.user_id)})
    again = api.post("/api/admin/wallets", admin, slug, json={"userId": str(person.user_id).upper()})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.headers["ETag"] == again.headers["ETag"] == '"1"'
    assert first.json == again.json
    assert api.get("/api/wallet", person, slug).json.items() <= first.json.items()


@OVER_TENANTS
def test_no_wallet_is_opened_for_who_is_no_member_of_this_tenant(
    api: Api, people: People, admin: Person, database: Database, slug: str
) -> None:
    """A member of the other tenant, a user of none, and an unknown id look alike."""
    elsewhere, nowhere = people.make(**{OTHER[slug]: "admin"}), people.make()
    seen = set()
    for user_id in (elsewhere.user_id, nowhere.user_id, uuid4()):
        response = api.post("/api/admin/wallets", admin, slug, json={"userId": str(user_id)})
        problem_of(response, 404, "member_not_found")
        seen.add(response.data)
        assert wallets_of(database, slug, user_id) == 0
    assert len(seen) == 1


# --- one wallet ----------------------------------------------------------------------------------------------------


@OVER_TENANTS
def test_a_wallets_etag_begins_with_its_version_which_money_does_not_change(
    api: Api, people: People, admin: Person, slug: str
) -> None:
    wallet_id = people.wallet(people.make(eur="member", km="member"), slug)
    path = f"/api/admin/wallets/{wallet_id}"
    first = api.get(path, admin, slug)
    assert (first.headers["ETag"][:3], first.json["version"]) == ('"1-', 1)
    assert api.post(f"{path}/deposits", admin, slug, json={"amount": "1.00"}).status_code == 201
    response = api.get(path, admin, slug)
    assert (response.headers["ETag"][:3], response.json["version"], response.json["balance"]) == ('"1-', 1, "1.00")
    assert response.headers["ETag"] != first.headers["ETag"]


@OVER_TENANTS
def test_a_wallet_of_the_other_tenant_is_not_found(api: Api, people: People, admin: Person, slug: str) -> None:
    foreign = people.wallet(people.make(eur="member", km="member"), OTHER[slug])
    path = f"/api/admin/wallets/{foreign}"
    assert api.get(path, admin, OTHER[slug]).status_code == 200
    response = api.get(path, admin, slug)
    problem_of(response, 404, "wallet_not_found")
    assert response.data == api.get(f"/api/admin/wallets/{uuid4()}", admin, slug).data
    problem_of(api.patch(path, admin, slug, if_match='"1"', json={"status": "frozen"}), 404, "wallet_not_found")
    assert api.get(path, admin, OTHER[slug]).json["status"] == "active"


# --- limit and status ----------------------------------------------------------------------------------------------


class Configured:
    """A wallet and its admin, who changes its limit and status."""

    def __init__(self, api: Api, people: People, database: Database, slug: str) -> None:
        self.api, self.slug, self._database = api, slug, database
        self.admin = people.make(eur="admin", km="admin")
        self.wallet_id = people.wallet(people.make(eur="member", km="member"), slug, balance_minor=1_000)
        self.path = f"/api/admin/wallets/{self.wallet_id}"

    def patch(self, body: dict[str, Any], if_match: str | None = '"1"', **headers: str) -> TestResponse:
        sent = {"If-Match": if_match, **headers} if if_match is not None else headers
        return self.api.send("PATCH", self.path, self.admin, self.slug, headers=sent, json=body)

    def shown(self) -> dict[str, Any]:
        wallet: dict[str, Any] = self.api.get(self.path, self.admin, self.slug).json
        return wallet

    def move(self, what: str, amount: str) -> None:
        more = {"reason": "a test"} if what == "adjustments" else {}
        answer = self.api.post(f"{self.path}/{what}", self.admin, self.slug, json={"amount": amount, **more})
        assert answer.status_code == 201, answer.text

    def log(self) -> list[tuple[Any, ...]]:
        query = (
            f"SELECT actor_id, action, before, after, request_id FROM {self.slug}_schema.audit_log"
            " WHERE wallet_id = %s AND action = 'wallet.configure' ORDER BY seq"
        )
        return list(self._database.as_superuser().execute(query, (self.wallet_id,)))


@pytest.fixture(params=["eur", "km"])
def wallet(request: pytest.FixtureRequest, api: Api, people: People, database: Database) -> Configured:
    return Configured(api, people, database, request.param)


def test_a_change_shows_in_the_answer_and_afterwards(wallet: Configured) -> None:
    response = wallet.patch({"creditLimit": "25.5", "status": "frozen"})
    assert (response.status_code, response.headers["ETag"]) == (200, '"2"')
    told = response.json
    assert (told["creditLimit"], told["status"], told["available"]) == ("25.50", "frozen", "35.50")
    assert wallet.shown() == told
    response = wallet.patch({"status": "active"}, '"2"')
    assert (response.json["status"], response.json["creditLimit"]) == ("active", "25.50")
    assert response.headers["ETag"] == '"3"'
    response = wallet.patch({"creditLimit": "0"}, '"3"')
    assert (response.json["status"], response.json["creditLimit"]) == ("active", "0.00")


def test_each_change_is_logged_with_who_what_before_after_and_the_request(wallet: Configured) -> None:
    wallet.patch({"creditLimit": "25.50"}, **{"X-Request-Id": "first-change"})
    wallet.patch({"status": "frozen"}, '"2"', **{"X-Request-Id": "second-change"})
    who = wallet.admin.user_id
    states = [
        {"creditLimitMinor": 0, "status": "active"},
        {"creditLimitMinor": 2550, "status": "active"},
        {"creditLimitMinor": 2550, "status": "frozen"},
    ]
    assert wallet.log() == [
        (who, "wallet.configure", states[0], states[1], "first-change"),
        (who, "wallet.configure", states[1], states[2], "second-change"),
    ]


def test_a_change_without_the_version_seen_is_refused(wallet: Configured) -> None:
    before = wallet.shown()
    for if_match in ("", " "):
        problem_of(wallet.patch({"status": "frozen"}, if_match), 428, "if_match_required")
    assert (wallet.shown(), wallet.log()) == (before, [])


OTHER_VERSIONS = ['"2"', '"0"', '"-1"', "1", 'W/"2"', '"3", "2"', '"x"', '"01x"', '"9999999999"', '"١"', '"1', "w/1"]


def test_a_change_of_another_version_than_the_last_is_refused(wallet: Configured) -> None:
    before = wallet.shown()
    for if_match in OTHER_VERSIONS:
        response = wallet.patch({"status": "frozen"}, if_match.encode().decode("latin-1"))
        problem_of(response, 412, "version_mismatch")
    assert (wallet.shown(), wallet.log()) == (before, [])


def test_a_version_is_used_up_by_the_first_change(wallet: Configured) -> None:
    assert wallet.patch({"status": "frozen"}).status_code == 200
    problem_of(wallet.patch({"status": "active"}), 412, "version_mismatch")
    assert (wallet.shown()["status"], len(wallet.log())) == ("frozen", 1)


def test_of_two_changes_at_once_one_wins(app: Flask, wallet: Configured) -> None:
    together = Barrier(2)

    def change(limit: str) -> TestResponse:
        together.wait(timeout=10)
        return Api(app).patch(wallet.path, wallet.admin, wallet.slug, if_match='"1"', json={"creditLimit": limit})

    with ThreadPoolExecutor(2) as pool:
        responses = [job.result() for job in [pool.submit(change, limit) for limit in ("1.00", "2.00")]]
    assert sorted(response.status_code for response in responses) == [200, 412]
    (won,) = [response.json["creditLimit"] for response in responses if response.status_code == 200]
    assert (wallet.shown()["creditLimit"], len(wallet.log())) == (won, 1)


def test_a_credit_limit_and_a_balance_together_fit_in_a_bigint(wallet: Configured) -> None:
    before = wallet.shown()
    problem_of(wallet.patch({"creditLimit": "92233720368547758.07"}), 422, "amount_out_of_range")
    assert (wallet.shown(), wallet.log()) == (before, [])


def test_a_credit_limit_does_not_fall_below_what_is_used(wallet: Configured) -> None:
    wallet.patch({"creditLimit": "20.00"})
    wallet.move("payments", "25.00")
    problem = problem_of(wallet.patch({"creditLimit": "14.99"}, '"2"'), 409, "credit_limit_below_used")
    assert {name: problem[name] for name in ("currency", "creditUsed", "held")} == {
        "currency": CURRENCY[wallet.slug],
        "creditUsed": "15.00",
        "held": "0.00",
    }
    assert (wallet.shown()["creditLimit"], len(wallet.log())) == ("20.00", 1)
    assert wallet.patch({"creditLimit": "15.00"}, '"2"').json["available"] == "0.00"


def test_a_wallet_with_money_in_it_is_not_closed(wallet: Configured) -> None:
    problem = problem_of(wallet.patch({"status": "closed"}), 409, "wallet_not_empty")
    assert (problem["balance"], problem["currency"]) == ("10.00", CURRENCY[wallet.slug])
    wallet.patch({"creditLimit": "1.00"})
    wallet.move("adjustments", "-10.50")
    problem = problem_of(wallet.patch({"status": "closed"}, '"2"'), 409, "wallet_not_empty")
    assert problem["balance"] == "-0.50"
    wallet.move("deposits", "0.50")
    assert wallet.patch({"status": "closed"}, '"2"').json["status"] == "closed"


def test_closing_is_final(wallet: Configured) -> None:
    wallet.move("adjustments", "-10.00")
    assert wallet.patch({"status": "closed"}).headers["ETag"] == '"2"'
    for body in ({"status": "active"}, {"status": "closed"}, {"creditLimit": "1.00"}):
        problem_of(wallet.patch(body, '"2"'), 409, "wallet_closed")
    assert (wallet.shown()["status"], len(wallet.log())) == ("closed", 1)


def test_a_refused_change_changes_neither_of_two_things(wallet: Configured) -> None:
    problem_of(wallet.patch({"creditLimit": "5.00", "status": "closed"}), 409, "wallet_not_empty")
    shown = wallet.shown()
    assert (shown["creditLimit"], shown["status"]) == ("0.00", "active")


@pytest.mark.parametrize(("status", "code"), [("frozen", "wallet_frozen"), ("closed", "wallet_closed")])
def test_a_frozen_or_closed_wallet_refuses_its_member_too(
    api: Api, people: People, admin: Person, status: str, code: str
) -> None:
    person = people.make(eur="member", km="member")
    for slug in ("eur", "km"):
        wallet_id = people.wallet(person, slug)
        api.patch(f"/api/admin/wallets/{wallet_id}", admin, slug, if_match='"1"', json={"status": status})
        problem_of(api.post("/api/wallet/payments", person, slug, json={"amount": "1.00"}), 409, code)
        assert api.get("/api/wallet", person, slug).json["status"] == status
