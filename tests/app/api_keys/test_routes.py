"""API keys: a service acts in exactly one tenant, within its role and until its key expires."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import faults_of, problem_of
from tests.factories.api import Api
from tests.factories.people import People, Person

KEYS = "/api/admin/api-keys"
OVER_TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])
OTHER = {"eur": "km", "km": "eur"}
OVER_ROLES = pytest.mark.parametrize("role", ["service", "auditor"])


def in_days(days: float) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


@pytest.fixture
def admin(people: People) -> Person:
    return people.make(eur="admin", km="admin")


def create(api: Api, admin: Person, slug: str, **changed: Any) -> TestResponse:
    return api.post(KEYS, admin, slug, json={"name": "till", "role": "service", "expiresAt": in_days(30)} | changed)


def service_of(api: Api, admin: Person, slug: str, role: str = "service") -> Person:
    """A new key, as a caller."""
    made = create(api, admin, slug, role=role).json
    return Person(UUID(made["id"]), "", made["key"])


def listed(api: Api, person: Person, slug: str) -> Iterator[dict[str, Any]]:
    """All keys of the tenant, over all pages."""
    cursor = ""
    while True:
        page = api.get(f"{KEYS}?limit=3{cursor}", person, slug).json
        yield from page["items"]
        if page["nextCursor"] is None:
            return
        cursor = f"&cursor={page['nextCursor']}"


def log_of(api: Api, admin: Person, slug: str, action: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = api.get(f"/api/admin/audit-log?action={action}&limit=200", admin, slug).json[
        "items"
    ]
    return entries


@OVER_TENANTS
@OVER_ROLES
def test_a_key_is_shown_once_and_kept_as_a_hash(
    api: Api, admin: Person, database: Database, slug: str, role: str
) -> None:
    made = create(api, admin, slug, name="nightly", role=role)
    assert made.status_code == 201, made.text
    found = re.fullmatch(r"wk_([0-9a-f]{32})_([\w-]{43})", made.json["key"], re.ASCII)
    assert found
    assert UUID(found[1]) == UUID(made.json["id"])
    shown = {name: value for name, value in made.json.items() if name != "key"}
    assert shown | {"name": "nightly", "role": role, "creatorId": str(admin.user_id), "revokedAt": None} == shown
    assert next(listed(api, admin, slug)) == shown
    assert made.headers["Location"] == f"{KEYS}/{made.json['id']}"
    assert api.get(made.headers["Location"], admin, slug).json == shown
    problem_of(api.get(made.headers["Location"], admin, OTHER[slug]), 404, "api_key_not_found")
    query = "SELECT secret_hash, row_to_json(k)::text FROM shared.api_keys k WHERE id = %s"
    with database.as_superuser() as superuser:
        row = superuser.execute(query, (shown["id"],)).fetchone()
    assert row
    assert row[0] == sha256(found[2].encode()).digest()
    assert found[2] not in row[1]


@OVER_TENANTS
def test_keys_are_listed_newest_first_and_never_another_tenants(api: Api, admin: Person, slug: str) -> None:
    own = [service_of(api, admin, slug).user_id for _ in range(5)]
    foreign = service_of(api, admin, OTHER[slug]).user_id
    found = [UUID(item["id"]) for item in listed(api, admin, slug)]
    assert found[:5] == own[::-1]
    assert foreign not in found
    assert foreign == UUID(next(listed(api, admin, OTHER[slug]))["id"])


@OVER_TENANTS
def test_a_key_opens_its_tenant_with_no_tenant_named(api: Api, people: People, admin: Person, slug: str) -> None:
    service = service_of(api, admin, slug)
    wallet = people.wallet(people.make(eur="member", km="member"), slug)
    for tenant in (None, slug):
        assert api.get(f"/api/admin/wallets/{wallet}", service, tenant).json["tenantId"] == slug
    assert api.get(f"/api/{slug}/admin/wallets/{wallet}", service).status_code == 200


@OVER_TENANTS
def test_naming_another_tenant_with_a_key_is_refused(api: Api, admin: Person, slug: str) -> None:
    service = service_of(api, admin, slug)
    other = OTHER[slug]
    for path, tenant in (("/api/admin/wallets", other), (f"/api/{other}/admin/wallets", None)):
        problem_of(api.get(path, service, tenant), 400, "tenant_ambiguous")
    response = api.get("/api/admin/wallets", service, headers={"Host": f"{other}.wallet.example"})
    problem_of(response, 400, "tenant_ambiguous")


@OVER_TENANTS
def test_a_service_moves_money_and_stands_in_ledger_and_log(api: Api, people: People, admin: Person, slug: str) -> None:
    service = service_of(api, admin, slug)
    wallet = people.wallet(people.make(eur="member", km="member"), slug)
    moved = api.post(f"/api/admin/wallets/{wallet}/deposits", service, json={"amount": "5.00"})
    assert (moved.status_code, moved.json["adminId"]) == (201, str(service.user_id))
    entry = next(entry for entry in log_of(api, admin, slug, "wallet.deposit") if entry["walletId"] == str(wallet))
    assert (entry["actorKind"], entry["actorId"]) == ("api_key", str(service.user_id))


@OVER_TENANTS
def test_an_auditors_key_reads_and_moves_nothing(api: Api, people: People, admin: Person, slug: str) -> None:
    auditor = service_of(api, admin, slug, "auditor")
    wallet = people.wallet(people.make(eur="member", km="member"), slug)
    assert api.get(f"/api/admin/wallets/{wallet}", auditor).json["balance"] == "0.00"
    assert api.get("/api/admin/audit-log", auditor).status_code == 200
    refused = api.post(f"/api/admin/wallets/{wallet}/deposits", auditor, json={"amount": "5.00"})
    problem_of(refused, 403, "admin_required")


MANAGING = [
    ("GET", KEYS, None),
    ("POST", KEYS, {"name": "more", "role": "service", "expiresAt": "2999-01-01T00:00:00Z"}),
    ("DELETE", KEYS + "/{self}", None),
    ("POST", "/api/admin/members", {"email": "thief@example.com", "role": "admin"}),
    ("PATCH", "/api/admin/members/{admin}", {"role": "member"}),
    ("DELETE", "/api/admin/members/{admin}", None),
    ("PATCH", "/api/admin/wallets/{wallet}", {"creditLimit": "1.00"}),
    ("POST", "/api/admin/wallets/{wallet}/adjustments", {"amount": "1.00", "reason": "why not"}),
]


@pytest.mark.parametrize("what", MANAGING, ids=lambda what: f"{what[0]} {what[1]}")
@OVER_TENANTS
@OVER_ROLES
def test_a_key_manages_nothing_and_the_log_says_that_it_tried(
    *, api: Api, people: People, admin: Person, slug: str, role: str, what: tuple[str, str, Any]
) -> None:
    (method, path, body), service = what, service_of(api, admin, slug, role)
    path = path.replace("{self}", str(service.user_id)).replace("{admin}", str(admin.user_id))
    path = path.replace("{wallet}", str(people.wallet(admin, slug)))
    headers = {"Idempotency-Key": "k", "If-Match": '"1"'}
    problem_of(api.send(method, path, service, headers=headers, json=body), 403, "admin_required")
    refusals = f"/api/admin/audit-log?actorId={service.user_id}&refused=true"
    (entry,) = api.get(refusals, admin, slug).json["items"]
    assert (entry["actorKind"], entry["refusal"], entry["subject"]) == ("api_key", "admin_required", path)


@OVER_TENANTS
def test_a_key_is_nobody_who_has_a_wallet_or_an_account(api: Api, admin: Person, slug: str) -> None:
    service = service_of(api, admin, slug)
    problem_of(api.get("/api/wallet", service), 403, "member_required")
    problem_of(api.get("/api/me", service), 403, "user_required")


def refused_alike(api: Api, *texts: str) -> None:
    """Also on the routes of users and operators, where a good key is refused for being a key."""
    answers = set()
    for text in texts:
        for path in ("/api/admin/wallets", "/api/me", "/api/admin/tenants"):
            response = api.get(path, Person(uuid4(), "", text))
            answers.add(problem_of(response, 401, "token_invalid")["detail"])
    assert len(answers) == 1


@OVER_TENANTS
def test_a_key_that_is_no_longer_or_never_was_is_refused_always_alike(
    api: Api, admin: Person, database: Database, slug: str
) -> None:
    over, revoked, good = (service_of(api, admin, slug) for _ in range(3))
    statement = "UPDATE shared.api_keys SET expires_at = now() WHERE id = %s"
    with database.as_superuser() as superuser:
        superuser.execute(statement, (over.user_id,))
    assert api.send("DELETE", f"{KEYS}/{revoked.user_id}", admin, slug).status_code == 204
    _, key_id, secret = good.token.split("_", 2)
    others_secret = over.token.split("_", 2)[2]
    refused_alike(
        api,
        over.token,
        revoked.token,
        f"wk_{uuid4().hex}_{secret}",
        f"wk_{key_id}_{others_secret}",
        f"wk_{key_id}_{secret[:-1]}",
        f"wk_{key_id}_{secret}_",
        f"wk_{key_id}_{secret.swapcase()}",
        f"wk_{key_id}_{sha256(secret.encode()).hexdigest()}",
        f"wk_{key_id}_",
        f"wk_{key_id}",
    )
    assert api.get("/api/admin/wallets", good).status_code == 200


@pytest.mark.parametrize("text", ["wk_", "wk_x_y", "wk__", "wk_' OR true --_x", "wk_é_é", "wk_" + "0" * 10_000, "WK_x"])
def test_what_is_no_key_is_refused(api: Api, text: str) -> None:
    problem_of(api.get("/api/admin/wallets", Person(uuid4(), "", text)), 401, "token_invalid")


@OVER_TENANTS
def test_a_key_is_revoked_once_and_stays_in_the_list(api: Api, admin: Person, slug: str) -> None:
    key_id = str(service_of(api, admin, slug).user_id)
    moments = set()
    for _ in range(2):
        response = api.send("DELETE", f"{KEYS}/{key_id}", admin, slug)
        assert (response.status_code, response.data) == (204, b"")
        moments.add(next(item["revokedAt"] for item in listed(api, admin, slug) if item["id"] == key_id))
    assert len(moments) == 1
    assert moments != {None}
    assert len([entry for entry in log_of(api, admin, slug, "api_key.revoke") if entry["subject"] == key_id]) == 1


@OVER_TENANTS
def test_an_admin_of_one_tenant_revokes_no_key_of_another(api: Api, people: People, admin: Person, slug: str) -> None:
    """Nor does an admin of both tenants, in the wrong one."""
    service = service_of(api, admin, slug)
    for person in (people.make(**{OTHER[slug]: "admin", slug: "member"}), admin):
        for key_id in (service.user_id, uuid4()):
            response = api.send("DELETE", f"{KEYS}/{key_id}", person, OTHER[slug])
            problem_of(response, 404, "api_key_not_found")
    assert api.get("/api/admin/wallets", service).status_code == 200


@pytest.mark.parametrize("role", ["member", "auditor"])
@OVER_TENANTS
def test_only_an_admin_sees_makes_and_revokes_keys(
    api: Api, people: People, admin: Person, slug: str, role: str
) -> None:
    person, service = people.make(eur=role, km=role), service_of(api, admin, slug)
    problem_of(api.get(KEYS, person, slug), 403, "admin_required")
    problem_of(create(api, person, slug), 403, "admin_required")
    problem_of(api.send("DELETE", f"{KEYS}/{service.user_id}", person, slug), 403, "admin_required")
    assert api.get("/api/admin/wallets", service).status_code == 200


@OVER_TENANTS
def test_making_and_revoking_a_key_is_in_the_log_without_its_secret(api: Api, admin: Person, slug: str) -> None:
    service = service_of(api, admin, slug)
    api.send("DELETE", f"{KEYS}/{service.user_id}", admin, slug)
    for action in ("api_key.create", "api_key.revoke"):
        (entry,) = (entry for entry in log_of(api, admin, slug, action) if entry["subject"] == str(service.user_id))
        assert (entry["actorKind"], entry["actorId"]) == ("user", str(admin.user_id))
        told = entry["after"] or entry["before"]
        assert (told["name"], told["role"]) == ("till", "service")
        assert service.token.split("_", 2)[2] not in str(entry)


@pytest.mark.parametrize(
    ("days", "code"), [(-1, "expiry_in_the_past"), (0, "expiry_in_the_past"), (367, "expiry_too_far")]
)
def test_a_key_ends_within_a_year(api: Api, admin: Person, days: int, code: str) -> None:
    assert faults_of(create(api, admin, "eur", expiresAt=in_days(days))) == [("expiresAt", code)]
    assert create(api, admin, "eur", expiresAt=in_days(365)).status_code == 201


@pytest.mark.parametrize("role", ["admin", "member", "operator"])
def test_no_key_is_an_admin(api: Api, admin: Person, role: str) -> None:
    assert faults_of(create(api, admin, "eur", role=role)) == [("role", "unknown_choice")]


def test_a_suspended_tenant_is_not_there_for_its_keys(fresh_app: Flask, fresh_database: Database) -> None:
    api, people = Api(fresh_app), People(fresh_app)
    admin = people.make(eur="admin", km="admin")
    suspended, other = service_of(api, admin, "km"), service_of(api, admin, "eur")
    fresh_database.as_superuser().execute("UPDATE shared.tenants SET status = 'suspended' WHERE slug = 'km'")
    problem_of(api.get("/api/admin/wallets", suspended), 404, "tenant_not_found")
    assert api.get("/api/admin/wallets", other).status_code == 200
