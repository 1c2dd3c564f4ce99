"""The list of tenants with totals, and changes of tenants: for operators only, effective at once everywhere."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
import structlog.testing
from flask import Flask
from werkzeug.test import TestResponse

from app import create_app
from app.tenants import fan_out
from tenant_schemas.flask import EXTENSION, connections
from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import faults_of, problem_of
from tests.app.tenants.conftest import Installation
from tests.conftest import settings_for
from tests.factories.api import ID_OF_NOTHING, Api
from tests.factories.people import People, Person

TENANTS = "/api/admin/tenants"
OPERATORS_ROUTES: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", TENANTS, {}),
    ("GET", f"{TENANTS}/eur", {}),
    ("PATCH", f"{TENANTS}/eur", {"json": {"status": "suspended"}}),
    ("POST", TENANTS, {"json": {"id": "new", "currency": "EUR"}}),
    ("GET", f"{TENANTS}/provisionings/{ID_OF_NOTHING}", {}),
]


def tenant_of(own: Installation, slug: str) -> dict[str, Any]:
    response = own.api.get(f"{TENANTS}/{slug}", own.operator)
    assert response.status_code == 200, response.text
    return dict(response.json)


def change(own: Installation, slug: str, **told: Any) -> dict[str, Any]:
    response = own.api.send("PATCH", f"{TENANTS}/{slug}", own.operator, json=told)
    assert response.status_code == 200, response.text
    return dict(response.json)


def log_of(own: Installation, slug: str) -> list[tuple[Any, ...]]:
    query = "SELECT actor_kind, actor_id, action, before, after FROM {}_schema.audit_log ORDER BY seq"
    return own.database.as_superuser().execute(query.format(slug).encode()).fetchall()


# --- who ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path", "more"), OPERATORS_ROUTES)
def test_nobody_but_operators_may_call_these(
    api: Api, people: People, method: str, path: str, more: dict[str, Any]
) -> None:
    for role in ("member", "admin", "auditor"):
        person = people.make(eur=role, km=role)
        problem_of(api.send(method, path, person, **more), 403, "operator_required")
        problem_of(api.send(method, path, person, "eur", **more), 403, "operator_required")
    problem_of(api.send(method, path, **more), 401, "token_missing")


@pytest.mark.parametrize(("method", "path", "more"), OPERATORS_ROUTES)
def test_no_api_key_may_call_these(api: Api, people: People, method: str, path: str, more: dict[str, Any]) -> None:
    admin = people.make(eur="admin")
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    told = {"name": "till", "role": "service", "expiresAt": tomorrow}
    key = api.post("/api/admin/api-keys", admin, "eur", json=told).json["key"]
    problem_of(api.send(method, path, Person(uuid4(), "", key), **more), 403, "user_required")


# --- looking ------------------------------------------------------------------------------------------------------


def test_a_tenant_is_shown_with_what_it_holds_in_each_currency(own: Installation) -> None:
    ana, bo = own.people.make(eur="member"), own.people.make(eur="member")
    own.people.wallet(ana, "eur", balance_minor=1_000)
    own.people.wallet(bo, "eur", balance_minor=50)
    owing = own.people.wallet(bo, "eur", currency="JPY", credit_limit_minor=900)
    paid = own.api.post(f"/api/admin/wallets/{owing}/payments", own.operator, "eur", json={"amount": "700"})
    assert paid.status_code == 201, paid.text
    own.api.post("/api/wallet/holds", ana, "eur", json={"amount": "2.00"})
    shown = tenant_of(own, "eur")
    assert shown.pop("createdAt").endswith("Z")
    assert shown.pop("revision") == own.database.tenant("eur").revision
    assert {each["currency"]: each for each in shown.pop("totals")} == {
        "EUR": {"currency": "EUR", "wallets": 2, "depositBalance": "10.50", "creditUsed": "0.00", "held": "2.00"},
        "JPY": {"currency": "JPY", "wallets": 1, "depositBalance": "0", "creditUsed": "700", "held": "0"},
    }
    assert shown.pop("version") > 0
    assert shown == {
        "id": "eur",
        "name": "eur",
        "status": "active",
        "currency": "EUR",
        "currencies": ["EUR", "USD", "JPY", "KWD"],
        "settings": {},
    }
    assert tenant_of(own, "km")["totals"] == []


def test_a_tenant_is_changed_from_the_version_that_was_seen(own: Installation) -> None:
    seen = own.api.get(f"{TENANTS}/eur", own.operator).headers["ETag"]

    def rename(tag: str, name: str) -> TestResponse:
        return own.api.send("PATCH", f"{TENANTS}/eur", own.operator, headers={"If-Match": tag}, json={"name": name})

    first = rename(f"W/{seen}", "One")
    assert (first.status_code, first.headers["ETag"]) == (200, f'"{first.json["version"]}"')
    problem_of(rename(seen, "Two"), 412, "version_mismatch")
    problem_of(rename("", "Two"), 428, "if_match_required")
    assert tenant_of(own, "eur")["name"] == "One"


def test_a_hold_that_is_over_is_not_held(own: Installation) -> None:
    person = own.people.make(km="member")
    own.people.wallet(person, "km", balance_minor=1_000)
    for amount in ("2.00", "3.00"):
        own.api.post("/api/wallet/holds", person, "km", json={"amount": amount})
    over = "UPDATE km_schema.holds SET expires_at = now() - interval '1 second' WHERE amount_minor = 300"
    own.database.as_superuser().execute(over)
    assert tenant_of(own, "km")["totals"][0]["held"] == "2.00"


def test_totals_beyond_a_bigint_are_exact(own: Installation) -> None:
    most = 2**63 - 1
    for _ in range(3):
        own.people.wallet(own.people.make(km="member"), "km", balance_minor=most)
    assert tenant_of(own, "km")["totals"][0]["depositBalance"] == f"{3 * most // 100}.{3 * most % 100:02d}"


def test_all_tenants_of_any_status_are_listed_by_slug_in_pages(own: Installation) -> None:
    change(own, "eur", status="archived")
    first = own.api.get(f"{TENANTS}?limit=1", own.operator).json
    second = own.api.get(f"{TENANTS}?limit=1&cursor={quote(first['nextCursor'])}", own.operator).json
    assert second["nextCursor"] is None
    assert [(item["id"], item["status"]) for item in first["items"] + second["items"]] == [
        ("eur", "archived"),
        ("km", "active"),
    ]
    assert own.api.get(TENANTS, own.operator).json["items"] == first["items"] + second["items"]


@pytest.mark.parametrize(("name", "most"), [("MOST_TENANTS", 1), ("MOST_SECONDS", 0.0)])
def test_a_page_reads_no_more_than_fits_a_request(
    own: Installation, monkeypatch: pytest.MonkeyPatch, name: str, most: float
) -> None:
    monkeypatch.setattr(fan_out, name, most)
    first = own.api.get(TENANTS, own.operator).json
    assert [item["id"] for item in first["items"]] == ["eur"]
    second = own.api.get(f"{TENANTS}?cursor={quote(first['nextCursor'])}", own.operator).json
    assert ([item["id"] for item in second["items"]], second["nextCursor"]) == (["km"], None)


@pytest.mark.parametrize(
    "damage",
    [
        "REVOKE SELECT ON eur_schema.wallets FROM tenant_eur",
        "UPDATE shared.tenants SET revision = '0001' WHERE slug = 'eur'",
        "ALTER TABLE eur_schema.wallets RENAME TO gone",
    ],
)
def test_a_tenant_that_can_not_be_read_is_listed_without_totals(own: Installation, damage: str) -> None:
    """Each tenant is read by its own role: revoking a right of tenant_eur hides eur's totals."""
    own.people.wallet(own.people.make(km="member"), "km", balance_minor=100)
    own.database.as_superuser().execute(damage.encode())
    eur, km = own.api.get(TENANTS, own.operator).json["items"]
    assert (eur["id"], eur["totals"]) == ("eur", None)
    assert km["totals"][0]["depositBalance"] == "1.00"


def test_a_tenant_whose_settings_are_wrong_can_be_seen_and_mended(own: Installation) -> None:
    own.database.as_superuser().execute(
        """UPDATE shared.tenants SET settings = settings || '{"max_connections": "many"}' WHERE slug = 'eur'"""
    )
    assert [item["settings"] for item in own.api.get(TENANTS, own.operator).json["items"]] == [None, {}]
    assert change(own, "eur", settings={"maxConnections": None})["settings"] == {}


@pytest.mark.parametrize("slug", ["nope", "EUR", "eur%00", "%C3%A9", "eur'--", "x" * 5_000])
def test_an_unknown_tenant_is_not_found(api: Api, operator: Person, slug: str) -> None:
    problem_of(api.get(f"{TENANTS}/{slug}", operator), 404, "tenant_not_found")
    problem_of(api.send("PATCH", f"{TENANTS}/{slug}", operator, json={"name": "A"}), 404, "tenant_not_found")


# --- changing -----------------------------------------------------------------------------------------------------


def test_what_is_sent_is_changed_and_nothing_else_and_logged(own: Installation) -> None:
    limits = {"rateLimit": "600/minute", "maxConcurrentRequests": 7}
    changed = change(
        own, "eur", name="Euro", currencies=["KWD", "EUR", "USD", "JPY", "CHF"], locale="bs-BA", settings=limits
    )
    assert changed == tenant_of(own, "eur")
    assert (changed["name"], changed["status"], changed["settings"]) == ("Euro", "active", limits)
    assert (changed["locale"], changed["currencies"]) == ("bs_BA", ["EUR", "KWD", "USD", "JPY", "CHF"])
    after = change(own, "eur", settings={"rateLimit": None}, locale=None)
    assert (after["settings"], after["name"]) == ({"maxConcurrentRequests": 7}, "Euro")
    assert "locale" not in after
    kind, actor_id, action, before, told = log_of(own, "eur")[0]
    assert (kind, actor_id, action) == ("operator", own.operator.user_id, "tenant.configure")
    assert before == {
        "name": "eur",
        "status": "active",
        "settings": {"currency": "EUR", "currencies": ["USD", "JPY", "KWD"]},
    }
    assert (told["name"], told["settings"]["rate_limit"], told["settings"]["locale"]) == ("Euro", "600/minute", "bs_BA")
    assert [len(log_of(own, slug)) for slug in ("eur", "km")] == [2, 0]


WRONG: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"currencies": ["EUR"]}, [("currencies", "currency_kept")]),
    ({"currencies": ["EUR", "XXX"]}, [("currencies.1", "not_a_currency")]),
    ({"currencies": None}, [("currencies", "not_a_list")]),
    ({"currency": "USD"}, [("currency", "unknown_field")]),
    ({"settings": {"currency": "USD"}}, [("settings.currency", "unknown_field")]),
    ({"settings": {"rate_limit": "1/day"}}, [("settings.rate_limit", "unknown_field")]),
    ({"settings": {"rateLimit": "fast"}}, [("settings.rateLimit", "not_a_rate")]),
    ({"settings": {"maxConnections": 0}}, [("settings.maxConnections", "out_of_range")]),
    ({"settings": {"statementTimeoutMs": "5"}}, [("settings.statementTimeoutMs", "not_a_number")]),
    ({"locale": "xx_XX"}, [("locale", "not_a_locale")]),
    ({"status": "gone"}, [("status", "unknown_choice")]),
    ({"id": "other"}, [("id", "unknown_field")]),
    ({"name": "Euro\u202epng"}, [("name", "format_character")]),
    ({"name": "\u3164"}, [("name", "empty")]),
    ({"name": "Euro\tKM"}, [("name", "control_character")]),
]


@pytest.mark.parametrize(("told", "faults"), WRONG, ids=str)
def test_a_wrong_change_is_named_and_changes_nothing(
    api: Api, operator: Person, database: Database, told: dict[str, Any], faults: list[tuple[str, str]]
) -> None:
    before = database.tenant("eur")
    assert faults_of(api.send("PATCH", f"{TENANTS}/eur", operator, json={"name": "Changed"} | told)) == faults
    assert database.tenant("eur") == before


@pytest.fixture
def second(own: Installation) -> Iterator[Api]:
    """Another process of the same installation, as far as one is possible here."""
    app: Flask = create_app(settings_for(own.database))
    yield Api(app)
    app.extensions[EXTENSION].close()


def test_a_suspension_counts_from_the_next_request_on_in_every_process(own: Installation, second: Api) -> None:
    person = own.people.make(eur="admin", km="admin")
    processes = (own.api, second)
    for api in processes:
        assert api.get("/api/wallet", person, "eur").status_code == 200
    assert change(own, "eur", status="suspended")["status"] == "suspended"
    for api in processes:
        problem_of(api.get("/api/wallet", person, "eur"), 404, "tenant_not_found")
        problem_of(api.get("/api/admin/wallets", own.operator, "eur"), 404, "tenant_not_found")
        assert api.get("/api/wallet", person, "km").status_code == 200
    change(own, "eur", status="active")
    for api in processes:
        assert api.get("/api/wallet", person, "eur").status_code == 200


def test_an_archived_tenant_is_read_by_its_auditors_and_by_nobody_else(own: Installation) -> None:
    people = {role: own.people.make(eur=role) for role in ("auditor", "admin", "member")}
    wallet_id = own.people.wallet(people["member"], "eur", balance_minor=100)
    change(own, "eur", status="archived")
    auditor = people["auditor"]
    for path in ("/api/admin/wallets", f"/api/admin/wallets/{wallet_id}", "/api/admin/audit-log"):
        assert own.api.get(path, auditor, "eur").status_code == 200, path
        for other in (people["admin"], people["member"], own.operator):
            problem_of(own.api.get(path, other, "eur"), 404, "tenant_not_found")
    deposit = own.api.post(f"/api/admin/wallets/{wallet_id}/deposits", auditor, "eur", json={"amount": "1.00"})
    problem_of(deposit, 404, "tenant_not_found")
    problem_of(own.api.get("/api/wallet", people["member"], "eur"), 404, "tenant_not_found")


def test_a_change_waits_for_another_of_the_same_tenant_and_loses_none(own: Installation) -> None:
    """Both read the settings to check their change, so they must run one after the other."""
    wanted = [{"maxConnections": 5}, {"maxBodyBytes": 99}, {"rateLimit": "5/day"}, {"statementTimeoutMs": 77}]
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(
                lambda told: Api(own.app).send("PATCH", f"{TENANTS}/eur", own.operator, json={"settings": told}), told
            )
            for told in wanted
        ]
        assert [job.result().status_code for job in jobs] == [200] * 4
    states = log_of(own, "eur")
    assert len(states) == 4
    assert all(states[place][4] == states[place + 1][3] for place in range(3)), "each starts from what the last left"


def test_nothing_is_changed_that_can_not_be_logged(own: Installation) -> None:
    own.database.as_superuser().execute("ALTER FUNCTION eur_schema.audit_note_v1 RENAME TO gone")
    response = own.api.send("PATCH", f"{TENANTS}/eur", own.operator, json={"name": "Unseen"})
    problem_of(response, 500, "internal_error")
    assert own.database.tenant("eur").name == "eur"


def test_a_tenant_in_trouble_can_be_suspended_all_the_same(own: Installation) -> None:
    """For instance when it holds all its connections. The service's log then names the operator."""
    app = create_app(settings_for(own.database, max_tenant_connections=1, connection_wait_seconds=0.1))
    with app.app_context(), connections().engine(own.database.tenant("eur")).begin() as connection:
        connection.exec_driver_sql("SELECT 1")
        with structlog.testing.capture_logs() as logs:
            response = Api(app).send("PATCH", f"{TENANTS}/eur", own.operator, json={"status": "suspended"})
    app.extensions[EXTENSION].close()
    assert response.status_code == 200, response.text
    assert not own.database.tenant("eur").is_active
    (lost,) = [line for line in logs if line["event"] == "audit_entry_lost"]
    assert (lost["tenant"], lost["actor"], lost["after"]["status"]) == ("eur", own.operator.user_id, "suspended")
