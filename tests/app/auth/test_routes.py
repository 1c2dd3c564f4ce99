"""POST /api/auth/login: valid credentials log in, and a refusal does not say which half was wrong."""

from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.auth import passwords
from app.auth.passwords import hash_password
from app.auth.tokens import TokenMint
from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of
from tests.factories.api import Api
from tests.factories.people import People, Person

PASSWORD = "correct horse battery staple"
OVER_TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])
# Headers that differ between any two requests: an address has fewer log-ins left after each.
OF_THIS_REQUEST = ("X-Request-Id", "RateLimit")


@pytest.fixture(scope="module")
def password_hash() -> str:
    return hash_password(PASSWORD)


@pytest.fixture
def person(people: People, password_hash: str) -> Person:
    return people.make(password_hash=password_hash, eur="member", km="admin")


def login(api: Api, email: str, password: str = PASSWORD, path: str = "/api/auth/login", **more: Any) -> TestResponse:
    return api.send("POST", path, json={"email": email, "password": password}, **more)


def test_a_user_gets_a_token_for_no_tenant_in_particular(api: Api, person: Person) -> None:
    response = login(api, person.email)
    told = response.json
    assert response.status_code == 200
    tokens = {"accessToken", "refreshToken", "deviceToken", "tokenType", "expiresIn", "refreshExpiresIn"}
    assert set(told) == {*tokens, "memberships"}
    assert (told["tokenType"], told["expiresIn"], told["refreshExpiresIn"]) == ("Bearer", 900, 30 * 86_400)
    assert told["memberships"] == [{"tenantId": "eur", "role": "member"}, {"tenantId": "km", "role": "admin"}]
    assert response.headers["Cache-Control"] == "no-store"
    sent = {"Authorization": f"Bearer {told['accessToken']}"}
    assert api.get("/api/me", headers=sent).json["id"] == str(person.user_id)
    problem_of(api.get("/api/wallet", headers=sent), 400, "tenant_required")
    for slug in ("eur", "km"):
        assert api.get("/api/wallet", headers=sent, tenant=slug).json["tenantId"] == slug


def test_a_password_may_have_characters_that_no_shown_text_may_have(api: Api, people: People) -> None:
    password = "correct\u00adhorse\u200d battery\u202e"
    person = people.make(password_hash=hash_password(password))
    assert login(api, person.email, password).status_code == 200
    body = {"currentPassword": password, "newPassword": f"{password}\u2060"}
    assert api.post("/api/auth/password", person, json=body).status_code == 200
    assert login(api, person.email, body["newPassword"]).status_code == 200


def test_an_address_has_no_case_and_no_edges(api: Api, person: Person) -> None:
    assert login(api, f" {person.email.upper()}\n").status_code == 200


@OVER_TENANTS
@pytest.mark.parametrize("way", ["header", "path", "host"])
def test_a_login_to_a_tenant_gives_a_token_for_it_alone(
    api: Api, person: Person, database: Database, way: str, slug: str
) -> None:
    other = {"eur": "km", "km": "eur"}[slug]
    told: dict[str, Any] = {
        "header": {"tenant": slug},
        "path": {"path": f"/api/{slug}/auth/login"},
        "host": {"headers": {"Host": f"{slug}.wallet.example"}},
    }[way]
    response = login(api, person.email, **told)
    assert response.status_code == 200
    token = response.json["accessToken"]
    mint: TokenMint = api.client.application.extensions["token_mint"]
    assert mint.check(token).claims["tenant"] == str(database.tenant(slug).id)
    sent = {"Authorization": f"Bearer {token}"}
    assert api.get("/api/wallet", headers=sent).json["tenantId"] == slug
    problem_of(api.get("/api/wallet", headers=sent, tenant=other), 400, "tenant_ambiguous")


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes against which passwords are verified, with the real verification."""

    class Watched:
        def verify(self, password_hash: str, password: str) -> bool:
            seen.append(password_hash)
            return hasher.verify(password_hash, password)

    seen: list[str] = []
    hasher = passwords._hasher
    monkeypatch.setattr(passwords, "_hasher", Watched())
    return seen


def test_a_refusal_is_the_same_for_wrong_unknown_disabled_and_passwordless(
    api: Api, people: People, database: Database, password_hash: str, verified: list[str]
) -> None:
    """The same bytes and headers after the same work: one verification with the same parameters."""
    known = people.make(password_hash=password_hash, eur="member")
    disabled = people.make(password_hash=password_hash, eur="member")
    passwordless = people.make(eur="member")
    database.as_superuser().execute("UPDATE shared.users SET status = 'disabled' WHERE id = %s", (disabled.user_id,))
    attempts = {
        "wrong": (known.email, PASSWORD + "x", password_hash),
        "unknown": ("unknown@example.com", PASSWORD, passwords.UNKNOWN_USER_HASH),
        "disabled": (disabled.email, PASSWORD, password_hash),
        "passwordless": (passwordless.email, PASSWORD, passwords.UNKNOWN_USER_HASH),
    }
    seen = {}
    for what, (email, password, expected) in attempts.items():
        verified.clear()
        response = login(api, email, password)
        problem_of(response, 401, "bad_credentials")
        assert verified == [expected], what
        seen[what] = (
            response.data,
            [header for header in response.headers if not header[0].startswith(OF_THIS_REQUEST)],
        )
    assert len({str(look) for look in seen.values()}) == 1
    assert dict(seen["wrong"][1])["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("named", ["nope", "EUR", "eur'--"])
def test_a_login_to_an_unknown_tenant_is_refused_like_one_to_a_foreign_tenant(
    api: Api, people: People, password_hash: str, named: str
) -> None:
    stranger = people.make(password_hash=password_hash, km="admin")
    foreign = login(api, stranger.email, tenant="eur")
    unknown = login(api, stranger.email, tenant=named)
    problem_of(foreign, 404, "tenant_not_found")
    assert foreign.data == unknown.data


@pytest.mark.parametrize("named", ["eur", "nope"])
def test_with_a_wrong_password_a_login_learns_nothing_about_tenants(
    api: Api, people: People, password_hash: str, named: str
) -> None:
    stranger = people.make(password_hash=password_hash, km="admin")
    problem_of(login(api, stranger.email, "wrong", tenant=named), 401, "bad_credentials")


def test_a_login_that_names_two_tenants_is_ambiguous(api: Api, person: Person) -> None:
    response = login(api, person.email, path="/api/km/auth/login", tenant="eur")
    problem_of(response, 400, "tenant_ambiguous")


def test_a_token_sent_along_with_a_login_counts_for_nothing(api: Api, person: Person, people: People) -> None:
    other = people.make(eur="admin", km="admin")
    sent = {"Authorization": f"Bearer {other.token}"}
    problem_of(login(api, person.email, "wrong", headers=sent), 401, "bad_credentials")
    token = login(api, person.email, headers=sent).json["accessToken"]
    assert api.get("/api/me", headers={"Authorization": f"Bearer {token}"}).json["id"] == str(person.user_id)


def test_no_tenant_is_asked_for_a_login(app: Flask, api: Api, person: Person, database: Database) -> None:
    """Users are in the shared schema; a login opens no tenant's connection."""
    superuser = database.as_superuser()
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename LIKE 'tenant%'"
    before = superuser.execute(count).fetchone()
    assert login(api, person.email, tenant="km").status_code == 200
    assert superuser.execute(count).fetchone() == before
