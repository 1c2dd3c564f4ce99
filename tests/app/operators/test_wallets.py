"""GET /api/admin/wallets without a tenant: an operator reads every active tenant's wallets, each under its own role."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from flask import Flask

from app import create_app
from app.tenancy import MIGRATIONS
from app.tenants import fan_out
from tenant_schemas.flask import EXTENSION, connections
from tenant_schemas.testing.plugin import Database, make_tenant
from tests.app.api.test_problems import faults_of, problem_of
from tests.app.tenants.conftest import Installation
from tests.conftest import settings_for
from tests.factories.api import Api
from tests.factories.people import People

WALLETS = "/api/admin/wallets"


def fill(own: Installation, **counts: int) -> list[tuple[str, str]]:
    """This many wallets in each tenant; returns tenant and wallet in the order of the list."""
    made = []
    for slug, count in sorted(counts.items()):
        made += [(slug, str(own.people.wallet(own.people.make(**{slug: "member"}), slug))) for _ in range(count)]
    return made


def pages(own: Installation, limit: int, query: str = "") -> Iterator[dict[str, Any]]:
    cursor = ""
    for _ in range(100):
        page = own.api.get(f"{WALLETS}?limit={limit}{query}{cursor}", own.operator)
        assert page.status_code == 200, page.text
        assert len(page.json["items"]) <= limit
        yield page.json
        if page.json["nextCursor"] is None:
            return
        cursor = f"&cursor={quote(page.json['nextCursor'])}"
    pytest.fail("the pages never end")


def shown(own: Installation, limit: int = 50, query: str = "") -> list[tuple[str, str]]:
    return [(item["tenantId"], item["id"]) for page in pages(own, limit, query) for item in page["items"]]


@pytest.mark.parametrize("role", ["member", "admin", "auditor"])
def test_nobody_but_an_operator_sees_more_than_one_tenant(api: Api, people: People, role: str) -> None:
    problem_of(api.get(WALLETS, people.make(eur=role, km=role)), 403, "operator_required")


def test_an_operator_who_names_a_tenant_sees_that_one(own: Installation) -> None:
    made = fill(own, eur=1, km=1)
    for slug, wallet_id in made:
        page = own.api.get(WALLETS, own.operator, slug).json
        assert [(item["tenantId"], item["id"]) for item in page["items"]] == [(slug, wallet_id)]
        assert set(page) == {"items", "nextCursor"}


@pytest.mark.parametrize(("eur", "km"), [(3, 4), (4, 4), (0, 3), (3, 0), (0, 0)])
def test_every_wallet_is_on_one_page_once_by_tenant_and_age(own: Installation, eur: int, km: int) -> None:
    made = fill(own, eur=eur, km=km)
    for limit in (1, 2, 3, 4, 7, 8, 9):
        found = list(pages(own, limit))
        assert [(item["tenantId"], item["id"]) for page in found for item in page["items"]] == made
        assert all(len(page["items"]) == limit for page in found[:-1]), "only the last page is short"
        assert all(page["unavailable"] == [] for page in found)


def test_two_tenants_whose_wallets_have_the_same_ids_are_not_mixed_up(own: Installation) -> None:
    """As in a tenant that was copied from another."""
    person = own.people.make(eur="member", km="member")
    wallet_id = own.people.wallet(person, "eur", balance_minor=500)
    superuser = own.database.as_superuser()
    superuser.execute(
        "INSERT INTO km_schema.wallets (id, user_id, currency, last_hash) VALUES (%s, %s, 'BAM', '')",
        (wallet_id, person.user_id),
    )
    items = own.api.get(WALLETS, own.operator).json["items"]
    assert [(item["tenantId"], item["currency"], item["balance"]) for item in items] == [
        ("eur", "EUR", "5.00"),
        ("km", "BAM", "0.00"),
    ]


def test_filters_count_in_every_tenant(own: Installation) -> None:
    ana = own.people.make(name="Ana", eur="member", km="member")
    wanted = [(slug, str(own.people.wallet(ana, slug))) for slug in ("eur", "km")]
    fill(own, eur=2, km=2)
    assert shown(own, 1, "&q=ana") == wanted
    superuser = own.database.as_superuser()
    superuser.execute("UPDATE km_schema.wallets SET status = 'frozen' WHERE id = %s", (wanted[1][1],))
    assert shown(own, 1, "&status=frozen") == wanted[1:]


def test_a_cursor_is_the_operators_own_and_for_these_filters_and_no_tenant(own: Installation) -> None:
    fill(own, eur=2)
    cursor = quote(own.api.get(f"{WALLETS}?limit=1", own.operator).json["nextCursor"])
    bad = [("cursor", "bad_cursor")]
    assert faults_of(own.api.get(f"{WALLETS}?limit=1&status=active&cursor={cursor}", own.operator)) == bad
    assert faults_of(own.api.get(f"{WALLETS}?limit=1&cursor={cursor}", own.operator, "eur")) == bad
    other = own.another_operator()
    assert faults_of(own.api.get(f"{WALLETS}?limit=1&cursor={cursor}", other)) == bad
    within = quote(own.api.get(f"{WALLETS}?limit=1", own.operator, "eur").json["nextCursor"])
    assert faults_of(own.api.get(f"{WALLETS}?limit=1&cursor={within}", own.operator)) == bad


def test_each_tenant_is_read_by_its_own_role(own: Installation) -> None:
    """A tenant whose right to read is revoked is missing, and only that one."""
    made = fill(own, eur=1, km=1)
    superuser = own.database.as_superuser()
    superuser.execute("REVOKE SELECT ON eur_schema.wallets FROM tenant_eur")
    (page,) = pages(own, 50)
    assert page["unavailable"] == ["eur"]
    assert [(item["tenantId"], item["id"]) for item in page["items"]] == made[1:]
    assert superuser.execute("SELECT has_schema_privilege('wallet_app', 'km_schema', 'USAGE')").fetchone() == (False,)


def test_what_an_operator_was_shown_is_in_that_tenants_log(own: Installation) -> None:
    fill(own, eur=1)
    assert len(shown(own)) == 1
    query = "SELECT actor_kind, actor_id, action, subject FROM {}_schema.audit_log WHERE action = 'look'"
    superuser = own.database.as_superuser()
    looks = superuser.execute(query.format("eur").encode()).fetchall()
    assert looks == [("operator", own.operator.user_id, "look", WALLETS)]
    assert superuser.execute(query.format("km").encode()).fetchall() == []


@pytest.mark.parametrize("status", ["suspended", "archived"])
def test_a_tenant_that_is_not_served_is_not_listed(own: Installation, status: str) -> None:
    made = fill(own, eur=1, km=1)
    own.database.as_superuser().execute("UPDATE shared.tenants SET status = %s WHERE slug = 'eur'", (status,))
    (page,) = pages(own, 50)
    assert [(item["tenantId"], item["id"]) for item in page["items"]] == made[1:]
    assert page["unavailable"] == []


def test_a_tenant_whose_schema_is_behind_is_named_and_passed_over(own: Installation) -> None:
    made = fill(own, eur=2, km=2)
    own.database.as_superuser().execute("UPDATE shared.tenants SET revision = '0001' WHERE slug = 'eur'")
    first, second = pages(own, 1)
    assert (first["unavailable"], second["unavailable"]) == (["eur"], [])
    assert [item["id"] for page in (first, second) for item in page["items"]] == [made[2][1], made[3][1]]


def test_a_tenant_between_two_pages_is_named_on_one_of_them(own: Installation) -> None:
    slug = f"z{uuid4().hex[:12]}"
    make_tenant(own.database, MIGRATIONS, slug, {"currency": "USD"})
    made = fill(own, eur=1, **{slug: 1})
    own.database.as_superuser().execute("UPDATE shared.tenants SET revision = '0001' WHERE slug = 'km'")
    found = list(pages(own, 1))
    assert [page["unavailable"] for page in found] == [["km"], []]
    assert [(item["tenantId"], item["id"]) for page in found for item in page["items"]] == made


def test_a_tenant_that_breaks_between_two_pages_is_passed_over(own: Installation) -> None:
    made = fill(own, eur=3, km=1)
    walk = pages(own, 2)
    assert len(next(walk)["items"]) == 2
    own.database.as_superuser().execute("DROP TABLE eur_schema.holds CASCADE")
    (last,) = walk
    assert (last["unavailable"], [item["id"] for item in last["items"]]) == (["eur"], [made[-1][1]])


def test_a_tenant_with_no_connection_left_is_passed_over(narrow: Installation) -> None:
    made = fill(narrow, eur=1, km=1)
    with narrow.app.app_context():
        engine = connections().engine(narrow.database.tenant("eur"))
        with engine.begin() as connection:
            connection.exec_driver_sql("SELECT 1")
            (page,) = pages(narrow, 50)
    assert (page["unavailable"], [item["id"] for item in page["items"]]) == (["eur"], [made[1][1]])


def test_a_page_reads_no_more_tenants_than_fit_a_request(own: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without items: the page is short and has a cursor."""
    monkeypatch.setattr(fan_out, "MOST_TENANTS", 1)
    (wallet,) = fill(own, km=1)
    first, second = pages(own, 50)
    assert first["items"] == []
    assert [(item["tenantId"], item["id"]) for item in second["items"]] == [wallet]


def test_a_page_takes_no_more_time_than_fits_a_request(own: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "MOST_SECONDS", 0.0)
    made = fill(own, eur=2, km=2)
    found = [[(item["tenantId"], item["id"]) for item in page["items"]] for page in pages(own, 50)]
    assert found == [made[:2], made[2:]]


@pytest.fixture
def narrow(fresh_database: Database) -> Iterator[Installation]:
    """An installation whose tenants have one connection each, without waiting."""
    app: Flask = create_app(settings_for(fresh_database, max_tenant_connections=1, connection_wait_seconds=0.1))
    yield Installation(app, fresh_database)
    app.extensions[EXTENSION].close()
