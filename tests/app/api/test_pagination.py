"""Lists: queries are parsed strictly, pages contain every item once, and a cursor works in its own list only."""

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer

from tests.app.api.test_problems import INSIDES, Answer, answer_of, refused_at
from tests.conftest import SECRET_KEY
from tests.factories.api import Api
from tests.factories.people import People

TENANTS = ("eur", "km")
# {wallet} stands for the wallet of the one who asks.
LISTS = ("/api/wallet/transactions", "/api/admin/wallets", "/api/admin/wallets/{wallet}/transactions")
OVER_LISTS = pytest.mark.parametrize("path", LISTS)
OVER_TENANTS = pytest.mark.parametrize("slug", TENANTS)
COUNT = 5


class Lists:
    """In each tenant COUNT wallets and, in the wallet of its admin, COUNT transactions."""

    def __init__(self, app: Flask) -> None:
        people = People(app)
        self.api = Api(app)
        self.admin = people.make(name="Lists", eur="admin", km="admin")
        self.wallet: dict[str, UUID] = {}
        for slug in TENANTS:
            self.wallet[slug] = people.wallet(self.admin, slug, balance_minor=1_000)
            for _ in range(COUNT - 1):
                people.wallet(people.make(name="Lists", eur="member", km="member"), slug)
                self.pay(slug)

    def pay(self, slug: str) -> None:
        assert self.api.post("/api/wallet/payments", self.admin, slug, json={"amount": "0.01"}).status_code == 201

    def fill(self, path: str, slug: str) -> str:
        return path.replace("{wallet}", str(self.wallet[slug]))

    def page(self, path: str, slug: str, **query: Any) -> dict[str, Any]:
        response = self.api.get(f"{self.fill(path, slug)}?{urlencode(query)}", self.admin, slug)
        assert response.status_code == 200, response.text
        page: dict[str, Any] = response.json
        assert set(page) == {"items", "nextCursor"}
        return page

    def pages(self, path: str, slug: str, **query: Any) -> Iterator[list[Any]]:
        """The items of each page."""
        for _ in range(50):
            page = self.page(path, slug, **query)
            yield page["items"]
            if page["nextCursor"] is None:
                return
            query["cursor"] = page["nextCursor"]
        pytest.fail("the pages never end")

    def cursor(self, path: str, slug: str, **query: Any) -> str:
        """A cursor of the list with these filters."""
        cursor = self.page(path, slug, limit=1, **query)["nextCursor"]
        assert isinstance(cursor, str)
        return cursor


@pytest.fixture(scope="module")
def world(app: Flask) -> Lists:
    return Lists(app)


# --- pages ---------------------------------------------------------------------------------------------------------


@OVER_TENANTS
@pytest.mark.parametrize("path", [LISTS[0], LISTS[2]])
def test_every_transaction_is_on_one_page_once_the_newest_first(world: Lists, path: str, slug: str) -> None:
    for limit in (1, 2, COUNT - 1, COUNT, COUNT + 1):
        pages = list(world.pages(path, slug, limit=limit, to="2100-01-01T00:00:00Z"))
        newest = pages[0][0]["seq"]
        assert newest >= COUNT
        assert [item["seq"] for page in pages for item in page] == list(range(newest, 0, -1))
        assert all(len(page) == limit for page in pages[:-1])
        assert 1 <= len(pages[-1]) <= limit
        assert {item["tenantId"] for page in pages for item in page} == {slug}


@OVER_TENANTS
def test_what_is_posted_meanwhile_does_not_disturb_a_walk(world: Lists, slug: str) -> None:
    pages = world.pages(LISTS[0], slug, limit=2)
    seen = [item["seq"] for item in next(pages)]
    newest = seen[0]
    for page in pages:
        world.pay(slug)
        seen += [item["seq"] for item in page]
    assert seen == list(range(newest, 0, -1))


@OVER_TENANTS
@OVER_LISTS
def test_a_cursor_goes_on_with_another_limit(world: Lists, path: str, slug: str) -> None:
    cursor = world.cursor(path, slug)
    for limit in (1, 3, 200):
        assert len(world.page(path, slug, limit=limit, cursor=cursor)["items"]) >= min(limit, COUNT - 1)


def test_a_page_holds_50_items_unless_asked_for_up_to_200(fresh_app: Flask) -> None:
    people, api = People(fresh_app), Api(fresh_app)
    admin = people.make(eur="admin")
    for _ in range(51):
        people.wallet(people.make(eur="member"), "eur")
    first = api.get("/api/admin/wallets", admin, "eur").json
    assert (len(first["items"]), first["nextCursor"] is None) == (50, False)
    everything = api.get("/api/admin/wallets?limit=200", admin, "eur").json
    assert (len(everything["items"]), everything["nextCursor"]) == (51, None)
    ordered = [item["id"] for item in everything["items"]]
    assert [item["id"] for item in first["items"]] == ordered[:50]


# --- cursors -------------------------------------------------------------------------------------------------------


def answer_to(world: Lists, path: str, slug: str, cursor: str, **query: Any) -> Answer:
    told = urlencode({"cursor": cursor, **query})
    return answer_of(world.api.get(f"{world.fill(path, slug)}?{told}", world.admin, slug))


BAD_CURSOR = refused_at("cursor", "bad_cursor")


@OVER_TENANTS
@OVER_LISTS
def test_a_cursor_of_another_tenant_or_list_is_refused(world: Lists, path: str, slug: str) -> None:
    cursor = world.cursor(path, slug)
    assert answer_to(world, path, slug, cursor) == [200]
    assert answer_to(world, path, {"eur": "km", "km": "eur"}[slug], cursor) == BAD_CURSOR
    for other in set(LISTS) - {path}:
        assert answer_to(world, other, slug, cursor) == BAD_CURSOR


@OVER_TENANTS
def test_a_cursor_of_another_wallet_is_refused(world: Lists, slug: str) -> None:
    cursor = world.cursor(LISTS[2], slug)
    wallets = [item["id"] for item in world.page(LISTS[1], slug, q="Lists", limit=200)["items"]]
    other = next(wallet_id for wallet_id in wallets if wallet_id != str(world.wallet[slug]))
    assert answer_to(world, f"/api/admin/wallets/{other}/transactions", slug, cursor) == BAD_CURSOR


@OVER_TENANTS
@OVER_LISTS
def test_a_cursor_of_another_user_is_refused(world: Lists, app: Flask, path: str, slug: str) -> None:
    cursor = quote(world.cursor(path, slug))
    other = People(app).make(eur="admin", km="admin")
    response = world.api.get(f"{world.fill(path, slug)}?cursor={cursor}", other, slug)
    assert answer_of(response) == BAD_CURSOR


SINCE_2020, SINCE_2021, TO_2100 = (
    {"from": "2020-01-01T00:00:00Z"},
    {"from": "2021-01-01T00:00:00Z"},
    {"to": "2100-01-01T00:00:00Z"},
)
FILTERS: list[tuple[str, dict[str, str], list[dict[str, str]]]] = [
    (LISTS[1], {}, [{"q": "Lists"}, {"status": "active"}]),
    (LISTS[1], {"q": "Lists"}, [{}, {"q": "lists"}, {"q": "Lists", "status": "active"}, {"status": "active"}]),
    (LISTS[0], {}, [{"type": "payment"}, SINCE_2020, TO_2100]),
    (LISTS[0], {"type": "payment"}, [{}, {"type": "deposit"}, {"type": "payment", **TO_2100}]),
    (LISTS[2], SINCE_2020, [{}, SINCE_2021, {"to": SINCE_2020["from"]}, {**SINCE_2020, **TO_2100}]),
]


@pytest.mark.parametrize("filters", FILTERS, ids=lambda filters: f"{filters[0]}:{','.join(filters[1])}")
@OVER_TENANTS
def test_a_cursor_of_other_filters_is_refused(
    world: Lists, slug: str, filters: tuple[str, dict[str, str], list[dict[str, str]]]
) -> None:
    path, own, others = filters
    cursor = world.cursor(path, slug, **own)
    assert answer_to(world, path, slug, cursor, **own) == [200]
    assert [answer_to(world, path, slug, cursor, **other) for other in others] == [BAD_CURSOR] * len(others)


@OVER_TENANTS
@OVER_LISTS
def test_a_cursor_that_was_changed_or_made_elsewhere_is_refused(world: Lists, path: str, slug: str) -> None:
    cursor = world.cursor(path, slug)
    payload, _, signature = cursor.rpartition(".")
    forged = URLSafeSerializer(SECRET_KEY, salt=b"cursor:").dumps(["2026-01-01T00:00:00+00:00", 1])
    changed = (payload, f"{payload}.", f".{signature}", f"x{cursor}", f"{cursor}x", cursor[:-1], cursor[::-1], forged)
    assert [answer_to(world, path, slug, each) for each in changed] == [BAD_CURSOR] * len(changed)


# --- queries -------------------------------------------------------------------------------------------------------

WRONG_QUERIES = {
    "limit=0": ("limit", "limit_out_of_range"),
    "limit=-1": ("limit", "limit_out_of_range"),
    "limit=201": ("limit", "limit_out_of_range"),
    "limit=999999999": ("limit", "limit_out_of_range"),
    "limit=9223372036854775808": ("limit", "not_an_integer"),
    "limit=x": ("limit", "not_an_integer"),
    "limit=": ("limit", "not_an_integer"),
    "limit=1.5": ("limit", "not_an_integer"),
    "limit=1e2": ("limit", "not_an_integer"),
    "limit=NaN": ("limit", "not_an_integer"),
    "limit=" + "9" * 5_000: ("limit", "not_an_integer"),
    "limit=%00": ("limit", "nul_character"),
    "limit=5&limit=5": ("limit", "repeated"),
    "cursor=": ("cursor", "empty"),
    "cursor=x": ("cursor", "bad_cursor"),
    "cursor=WyIyMDI2LTAxLTAxIiwxXQ.x": ("cursor", "bad_cursor"),
    "cursor=%C3%A9.%C3%A9": ("cursor", "bad_cursor"),
    "cursor=" + "x" * 1_001: ("cursor", "too_long"),
    "cursor=%00": ("cursor", "nul_character"),
    "unknown=1": ("unknown", "unknown_field"),
    "Limit=5": ("Limit", "unknown_field"),
    "limit[]=5": ("limit[]", "unknown_field"),
    "tenant=km": ("tenant", "unknown_field"),
    "tenantId=km": ("tenantId", "unknown_field"),
    "a%00=1": ("a\\x00", "nul_character"),
}
WRONG_WALLET_QUERIES = {
    "q=": ("q", "empty"),
    "q=%20": ("q", "empty"),
    "q=%00": ("q", "nul_character"),
    "q=a%00b": ("q", "nul_character"),
    "q=%1b": ("q", "control_character"),
    "q=" + "x" * 101: ("q", "too_long"),
    "q=a&q=b": ("q", "repeated"),
    "status=": ("status", "unknown_choice"),
    "status=gone": ("status", "unknown_choice"),
    "status=active&status=frozen": ("status", "repeated"),
}
WRONG_TRANSACTION_QUERIES = {
    "type=": ("type", "unknown_choice"),
    "type=Payment": ("type", "unknown_choice"),
    "type=payment&type=refund": ("type", "repeated"),
    "from=%00": ("from", "nul_character"),
    "to=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z": ("to", "repeated"),
    "start=2026-01-01T00:00:00Z": ("start", "unknown_field"),
}


def answers_to(world: Lists, path: str, slug: str, queries: Iterable[str]) -> dict[str, Answer]:
    filled = world.fill(path, slug)
    return {query: answer_of(world.api.get(f"{filled}?{query}", world.admin, slug)) for query in queries}


@OVER_LISTS
@OVER_TENANTS
def test_a_query_with_a_fault_is_refused(world: Lists, path: str, slug: str) -> None:
    own = WRONG_WALLET_QUERIES if path == "/api/admin/wallets" else WRONG_TRANSACTION_QUERIES
    wrong = WRONG_QUERIES | own
    expected = {query: refused_at(*fault) for query, fault in wrong.items()}
    assert answers_to(world, path, slug, wrong) == expected


@OVER_LISTS
def test_a_limit_is_written_in_ascii_digits_alone(world: Lists, path: str) -> None:
    wrong = ["limit=" + quote(limit) for limit in ("+5", " 5", "5 ", "1_0", "٥", "５")]
    assert answers_to(world, path, "eur", wrong) == {query: refused_at("limit", "not_an_integer") for query in wrong}


@OVER_TENANTS
def test_a_surrogate_in_a_query_reaches_nothing(world: Lists, slug: str) -> None:
    """A URL carries bytes; the bytes of a surrogate are invalid UTF-8 and become a replacement character first."""
    response = world.api.get("/api/admin/wallets?q=%ED%A0%80", world.admin, slug)
    assert (response.status_code, response.json) == (200, {"items": [], "nextCursor": None})


NOT_MOMENTS = (
    *("", "x", "now", "2026", "1767225600", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z"),
    *("2026-02-30T00:00:00Z", "2026-01-01T25:00:00Z", "2026-01-01T00:00:00+25:00", "0000-01-01T00:00:00Z"),
    *("10000-01-01T00:00:00Z", "infinity", "2026-01-01T00:00:00 00:00", "٢٠٢٦-01-01T00:00:00Z"),
)
OVER_TRANSACTION_LISTS = pytest.mark.parametrize("path", [LISTS[0], LISTS[2]])


@OVER_TRANSACTION_LISTS
@OVER_TENANTS
def test_a_moment_without_an_offset_or_sense_is_refused(world: Lists, path: str, slug: str) -> None:
    for name in ("from", "to"):
        wrong = [f"{name}={quote(moment)}" for moment in NOT_MOMENTS]
        expected = {query: refused_at(name, "not_a_moment") for query in wrong}
        assert answers_to(world, path, slug, wrong) == expected


@OVER_TRANSACTION_LISTS
def test_a_moment_that_is_iso_8601_but_not_rfc_3339_is_refused(world: Lists, path: str) -> None:
    wrong = [f"from={quote(moment)}" for moment in ("2026-W01-1T00:00:00Z", "20260101T000000Z", "2026-01-01T00Z")]
    assert answers_to(world, path, "eur", wrong) == {query: refused_at("from", "not_a_moment") for query in wrong}


@OVER_TRANSACTION_LISTS
@OVER_TENANTS
def test_the_ends_of_time_are_moments_too(world: Lists, path: str, slug: str) -> None:
    first, last = "0001-01-01T00:00:00", "9999-12-31T23:59:59.999999"
    ends = [first + offset for offset in ("Z", "-12:00", "-23:59")] + [last + offset for offset in ("Z", "+14:00")]
    right = [f"{name}={quote(end)}" for name in ("from", "to") for end in ends]
    assert answers_to(world, path, slug, right) == {query: [200] for query in right}


# --- anything at all -----------------------------------------------------------------------------------------------

# Without words of the insides, which hypothesis takes from our code: an answer repeats an unknown parameter's name.
ANY_TEXT = st.text(st.characters(), max_size=20).filter(lambda text: not INSIDES.search(text))


@settings(max_examples=150, deadline=None, database=None)
@given(
    path=st.sampled_from(LISTS),
    slug=st.sampled_from(TENANTS),
    query=st.dictionaries(
        st.sampled_from(["limit", "cursor", "q", "status", "type", "from", "to"]) | ANY_TEXT,
        ANY_TEXT | st.datetimes().map(lambda moment: moment.isoformat() + "Z") | st.integers().map(str),
        max_size=3,
    ),
)
def test_no_query_breaks_the_service(world: Lists, path: str, slug: str, query: dict[str, str]) -> None:
    told = urlencode(query, errors="replace")
    assert answer_of(world.api.get(f"{world.fill(path, slug)}?{told}", world.admin, slug))[0] < 500
