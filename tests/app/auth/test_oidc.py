"""Tokens of an OpenID provider: a valid one authenticates its user, and no forgery does."""

import hashlib
import hmac
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import time
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from app import create_app
from app.auth import jwks_client
from app.auth.oidc import OpenIdProvider
from app.auth.passwords import hash_password
from tenant_schemas.flask import EXTENSION
from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of
from tests.app.auth.test_tokens import encoded
from tests.conftest import settings_for
from tests.factories.api import Api
from tests.factories.browser import PASSWORD, Browser
from tests.factories.people import People, Person
from tests.factories.provider import AUDIENCE, DISCOVERY, JWKS, Provider

OVER_TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.stop()


def believing(database: Database, provider: Provider) -> Flask:
    return create_app(settings_for(database, oidc_issuer=provider.issuer, oidc_audience=AUDIENCE))


@pytest.fixture
def app(database: Database, provider: Provider) -> Iterator[Flask]:
    """An application that trusts this provider and has fetched nothing yet."""
    app = believing(database, provider)
    yield app
    app.extensions[EXTENSION].close()


@pytest.fixture
def person(people: People) -> Person:
    return people.make(eur="admin", km="member")


def status_of(api: Api, token: str) -> int:
    return api.get("/api/me", headers={"Authorization": f"Bearer {token}"}).status_code


def refuse(api: Api, token: str) -> None:
    """With the same words as a wrong token of this service."""
    ours = api.get("/api/me", headers={"Authorization": "Bearer x.y.z"})
    answer = api.get("/api/me", headers={"Authorization": f"Bearer {token}"})
    assert problem_of(answer, 401, "token_invalid") == problem_of(ours, 401, "token_invalid")


# --- who is let in -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["EC", "RSA"])
def test_a_token_is_the_users_with_that_address(api: Api, provider: Provider, person: Person, kind: str) -> None:
    token = provider.token(person.email.upper(), kid=provider.add_key(kind))
    answer = api.get("/api/me", headers={"Authorization": f"Bearer {token}"})
    assert answer.json["id"] == str(person.user_id)


def test_a_token_says_when_it_ends(app: Flask, provider: Provider, person: Person) -> None:
    """A stream of events ends with it."""
    soon = int(time()) + 60
    with app.app_context():
        checked = OpenIdProvider(provider.issuer, AUDIENCE, ("ES256",)).check(provider.token(person.email, exp=soon))
    assert checked.claims["exp"] == soon


def test_membership_decides_as_it_does_for_everybody(api: Api, provider: Provider, people: People) -> None:
    person = people.make(eur="member")
    caller = Person(person.user_id, person.email, provider.token(person.email))
    assert api.get("/api/wallet", caller, "eur").status_code == 200
    problem_of(api.get("/api/wallet", caller, "km"), 404, "tenant_not_found")
    problem_of(api.get("/api/admin/wallets", caller, "eur"), 403, "admin_required")
    problem_of(api.get("/api/wallet", caller), 400, "tenant_required")


@OVER_TENANTS
def test_the_providers_claims_choose_no_tenant(
    api: Api, provider: Provider, person: Person, database: Database, slug: str
) -> None:
    token = provider.token(person.email, tenant=str(database.tenant(slug).id), tenant_id=slug)
    caller = Person(person.user_id, person.email, token)
    problem_of(api.get("/api/wallet", caller), 400, "tenant_required")
    for named in ("eur", "km"):
        assert api.get("/api/wallet", caller, named).json["tenantId"] == named


def test_our_own_tokens_hold_beside_it(api: Api, provider: Provider, person: Person) -> None:
    assert api.get("/api/me", person).status_code == 200
    assert provider.fetches.total() == 0


def test_without_a_provider_its_tokens_are_nothing(database: Database, provider: Provider, person: Person) -> None:
    app = create_app(settings_for(database))
    refuse(Api(app), provider.token(person.email))
    assert provider.fetches.total() == 0
    app.extensions[EXTENSION].close()


def test_several_audiences_need_to_say_that_it_was_made_for_us(api: Api, provider: Provider, person: Person) -> None:
    both = [AUDIENCE, "another"]
    assert status_of(api, provider.token(person.email, aud=both, azp=AUDIENCE)) == 200
    refuse(api, provider.token(person.email, aud=both, azp="another"))
    refuse(api, provider.token(person.email, aud=both))


# --- who is not ----------------------------------------------------------------------------------------------------

NOW = int(time())
WRONG: dict[str, dict[str, Any]] = {
    "another audience": {"aud": "another"},
    "other audiences": {"aud": ["another", "more"]},
    "no audience": {"aud": None},
    "no expiry": {"exp": None},
    "an expiry that is text": {"exp": "9999999999"},
    "not yet": {"nbf": NOW + 3600},
    "issued in the future": {"iat": NOW + 3600},
    "no time of issue": {"iat": None},
    "no subject": {"sub": None},
    "an address that was not verified": {"email_verified": False},
    "nothing said of the verification": {"email_verified": None},
    "a verification in words": {"email_verified": "true"},
    "a verification that is one": {"email_verified": 1},
    "no address": {"email": None},
    "an empty address": {"email": ""},
    "a list of addresses": {"email": ["{email}"]},
    "an address with a NUL": {"email": "\x00{email}"},
    "another address": {"email": "unknown@example.com"},
    "an issuer with a slash": {"iss": "{issuer}/"},
    "our own issuer": {"iss": "schema-wallet"},
}


@pytest.mark.parametrize("what", WRONG)
def test_a_token_with_a_wrong_claim_is_refused(api: Api, provider: Provider, person: Person, what: str) -> None:
    filled = json.dumps(WRONG[what]).replace("{email}", person.email).replace("{issuer}", provider.issuer)
    refuse(api, provider.token(person.email, **json.loads(filled)))


@pytest.mark.parametrize(("methods", "status"), [(["pwd", "mfa"], 200), (["pwd"], 403), ("mfa", 403), (None, 403)])
def test_the_provider_says_whether_it_asked_for_a_second_factor(
    *, api: Api, provider: Provider, people: People, database: Database, methods: Any, status: int
) -> None:
    admin = people.make(eur="admin")
    change = "UPDATE shared.tenants SET settings = settings {} WHERE slug = 'eur'"
    with database.as_superuser() as superuser:
        superuser.execute(change.format("""|| '{"require_second_factor": true}'""").encode())
        try:
            claims = {} if methods is None else {"amr": methods}
            token = provider.token(admin.email, **claims)
            headers = {"Authorization": f"Bearer {token}"}
            assert api.get("/api/admin/members", tenant="eur", headers=headers).status_code == status
        finally:
            superuser.execute(change.format("- 'require_second_factor'").encode())


def test_an_expired_token_is_to_be_refreshed_at_the_provider(api: Api, provider: Provider, person: Person) -> None:
    token = provider.token(person.email, exp=NOW - 3600)
    answer = api.get("/api/me", headers={"Authorization": f"Bearer {token}"})
    assert "identity provider" in problem_of(answer, 401, "token_expired")["detail"]


def test_a_disabled_user_is_nobody(api: Api, provider: Provider, person: Person, database: Database) -> None:
    token = provider.token(person.email)
    assert status_of(api, token) == 200
    with database.as_superuser() as superuser:
        superuser.execute("UPDATE shared.users SET status = 'disabled' WHERE id = %s", (person.user_id,))
    refuse(api, token)


def test_an_address_that_becomes_another_in_lower_case_is_not_that_other(
    api: Api, provider: Provider, person: Person, database: Database
) -> None:
    """U+212A, the Kelvin sign, is k in lower case; the provider has verified it for another person."""
    email = f"kim-{person.email}"
    with database.as_superuser() as superuser:
        superuser.execute("UPDATE shared.users SET email = %s WHERE id = %s", (email, person.user_id))
    assert status_of(api, provider.token(email)) == 200
    refuse(api, provider.token(email.replace("k", "\u212a", 1)))


def test_a_key_that_the_provider_does_not_publish_signs_nothing(api: Api, provider: Provider, person: Person) -> None:
    stranger = ECKey.generate_key("P-256")
    for kid in (provider.kid, uuid4().hex, "", "../../dev/null", "x" * 5_000):
        refuse(api, provider.token(person.email, kid=kid or " ", key=stranger))
    claims = provider.claims(person.email)
    for header in (
        {"jwk": stranger.as_dict(private=False)},
        {"jku": f"{provider.issuer}/x"},
        {"kid": provider.kid, "crit": ["x"], "x": 1},
    ):
        signed = encoded({"alg": "ES256", **header}) + "." + encoded(claims)
        refuse(api, f"{signed}.{encoded(b'0' * 64)}")
    own = jwt.encode({"alg": "ES256"}, claims, provider.keys[provider.kid], algorithms=["ES256"])
    refuse(api, own)  # It names no key.


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_public_key_is_no_secret(api: Api, provider: Provider, person: Person, algorithm: str) -> None:
    """The token is signed with the bytes of the published key, in each form that a library might take for a secret."""
    kid = provider.add_key("RSA")
    published = provider.keys[kid]
    header = encoded({"alg": algorithm, "kid": kid})
    signed = f"{header}.{encoded(provider.claims(person.email))}"
    for secret in (
        published.as_pem(private=False),
        published.as_der(private=False),
        json.dumps(published.as_dict(private=False)).encode(),
    ):
        digest = hmac.new(secret, signed.encode(), hashlib.new(f"sha{algorithm[2:]}").name).digest()
        refuse(api, f"{signed}.{encoded(digest)}")
    assert status_of(api, provider.token(person.email, kid=kid)) == 200


def test_a_secret_that_the_provider_publishes_is_no_key(api: Api, provider: Provider, person: Person) -> None:
    secret = OctKey.generate_key(256, {"kid": "shared"})
    published = {"keys": [*provider.jwks()["keys"], secret.as_dict(private=True)]}
    provider.answers[JWKS] = lambda: (200, {}, json.dumps(published).encode())
    header = {"alg": "HS256", "kid": "shared"}
    refuse(api, jwt.encode(header, provider.claims(person.email), secret, algorithms=["HS256"]))
    assert status_of(api, provider.token(person.email)) == 200


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, "PS256", "ES384", "RS256", []])
def test_no_signature_and_no_other_algorithm_will_do(
    api: Api, provider: Provider, person: Person, algorithm: Any
) -> None:
    _, claims, signature = provider.token(person.email).split(".")
    header = encoded({"alg": algorithm, "kid": provider.kid})
    refuse(api, f"{header}.{claims}.{signature}")
    refuse(api, f"{header}.{claims}.")
    refuse(api, f"{header}.{claims}")


def test_a_token_that_was_changed_is_refused(api: Api, provider: Provider, people: People, person: Person) -> None:
    header, _, signature = provider.token(people.make(eur="member").email).split(".")
    refuse(api, f"{header}.{encoded(provider.claims(person.email))}.{signature}")


def test_a_key_for_encryption_verifies_nothing(api: Api, provider: Provider, person: Person) -> None:
    published = {"keys": [{**key, "use": "enc"} for key in provider.jwks()["keys"]]}
    provider.answers[JWKS] = lambda: (200, {}, json.dumps(published).encode())
    refuse(api, provider.token(person.email))


def test_a_log_out_with_a_providers_token_is_refused_and_yet_leaves_no_session_of_the_cookies(
    app: Flask, api: Api, provider: Provider, people: People
) -> None:
    made = people.make(password_hash=hash_password(PASSWORD), eur="member")
    browser = Browser(app)
    assert browser.login(made).status_code == 200
    kept = dict(browser.cookies)
    headers = {"Authorization": f"Bearer {provider.token(made.email)}"}
    problem_of(browser.send("POST", "/api/auth/logout", headers=headers), 403, "session_required")
    assert set(browser.cookies) == {"__Secure-device"}
    browser.cookies = kept
    problem_of(browser.send("GET", "/api/me"), 401, "session_over")


# --- the provider's keys -------------------------------------------------------------------------------------------


def test_keys_are_fetched_once_for_many_at_a_time(app: Flask, provider: Provider, person: Person) -> None:
    token = provider.token(person.email)
    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda _: status_of(Api(app), token), range(40)))
    assert statuses == [200] * 40
    assert provider.fetches == {DISCOVERY: 1, JWKS: 1}


def test_a_key_made_since_is_found_and_one_withdrawn_ends(
    api: Api, provider: Provider, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = provider.token(person.email)
    assert status_of(api, old) == 200
    del provider.keys[provider.kid]
    provider.kid = provider.add_key()
    monkeypatch.setattr(jwks_client, "REST_SECONDS", 0)
    assert status_of(api, provider.token(person.email)) == 200
    refuse(api, old)


def test_any_number_of_unknown_keys_brings_one_fetch(app: Flask, provider: Provider, person: Person) -> None:
    api, stranger = Api(app), ECKey.generate_key("P-256")
    tokens = [provider.token(person.email, kid=uuid4().hex, key=stranger) for _ in range(60)]
    with ThreadPoolExecutor(8) as threads:
        statuses = set(threads.map(lambda token: status_of(Api(app), token), tokens))
    assert statuses == {401}
    assert provider.fetches == {DISCOVERY: 1, JWKS: 1}
    assert status_of(api, provider.token(person.email)) == 200


def test_a_provider_that_is_down_at_the_start_is_asked_again_later(
    api: Api, provider: Provider, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.stop()
    token = provider.token(person.email)
    for _ in range(3):
        answer = api.get("/api/me", headers={"Authorization": f"Bearer {token}"})
        problem_of(answer, 503, "identity_provider_unavailable")
        assert answer.headers["Retry-After"]
    assert api.get("/api/me", person).status_code == 200, "our own tokens hold"
    provider.start()
    monkeypatch.setattr(jwks_client, "REST_SECONDS", 0)
    assert status_of(api, token) == 200


def test_known_keys_hold_while_the_provider_is_down_but_not_for_ever(
    api: Api, provider: Provider, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = provider.token(person.email)
    assert status_of(api, token) == 200
    provider.stop()
    monkeypatch.setattr(jwks_client, "REST_SECONDS", 0)
    monkeypatch.setattr(jwks_client, "FRESH_SECONDS", 0)
    assert [status_of(api, token) for _ in range(5)] == [200] * 5
    refuse(api, provider.token(person.email, kid=provider.add_key()))
    monkeypatch.setattr(jwks_client, "STALE_SECONDS", 0)
    assert status_of(api, token) == 503
    provider.start()


def test_a_slow_provider_keeps_nobody_waiting_who_has_a_known_key(
    api: Api, provider: Provider, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = provider.token(person.email)
    assert status_of(api, token) == 200
    may_answer, was_asked, has_answered = Event(), Event(), Event()

    def slowly() -> tuple[int, dict[str, str], bytes]:
        was_asked.set()
        may_answer.wait(20)
        has_answered.set()
        return provider.answer(JWKS)

    provider.answers[JWKS] = slowly
    for name, seconds in (("REST_SECONDS", 0), ("FRESH_SECONDS", 0), ("WAIT_SECONDS", 60), ("TIMEOUT_SECONDS", 60)):
        monkeypatch.setattr(jwks_client, name, seconds)
    assert status_of(api, token) == 200
    assert was_asked.wait(20)
    monkeypatch.setattr(jwks_client, "REST_SECONDS", 60)
    assert [status_of(api, token) for _ in range(5)] == [200] * 5
    monkeypatch.setattr(jwks_client, "WAIT_SECONDS", 0.05)
    refuse(api, provider.token(person.email, kid=provider.add_key()))
    assert provider.fetches[JWKS] == 2, "one at a time"
    assert not has_answered.is_set()
    may_answer.set()


def test_keys_of_another_site_are_not_fetched_by_a_redirect(api: Api, provider: Provider, person: Person) -> None:
    to = f"http://127.0.0.1:{provider.port}/elsewhere"
    provider.answers["/elsewhere"] = lambda: provider.answer(JWKS)
    for status in (301, 302, 303, 307, 308):
        provider.answers[JWKS] = lambda status=status: (status, {"Location": to}, b"")  # type: ignore[misc]
        with pytest.raises(OSError, match=str(status)):
            jwks_client.fetch_keys(provider.issuer)
    assert status_of(api, provider.token(person.email)) == 503
    assert provider.fetches["/elsewhere"] == 0


WRONG_DISCOVERIES: dict[str, dict[str, Any] | list[Any] | bytes] = {
    "another issuer": {"issuer": "https://id.example"},
    "an issuer with a slash": {"issuer": "{issuer}/"},
    "no issuer": {"issuer": None},
    "keys in a file": {"jwks_uri": "file:///etc/passwd"},
    "keys by FTP": {"jwks_uri": "ftp://127.0.0.1/keys"},
    "keys without https elsewhere": {"jwks_uri": "http://id.example/keys"},
    "keys behind a user's name": {"jwks_uri": "http://localhost@id.example/keys"},
    "keys nowhere": {"jwks_uri": None},
    "keys that are a number": {"jwks_uri": 5},
    "a list": [],
    "no JSON": b"<html>",
    "deep JSON": b"[" * 100_000,
}


@pytest.mark.parametrize("what", WRONG_DISCOVERIES)
def test_a_wrong_discovery_document_gives_no_key(api: Api, provider: Provider, person: Person, what: str) -> None:
    wrong = WRONG_DISCOVERIES[what]
    said = provider.discovery() | wrong if isinstance(wrong, dict) else wrong
    text = said if isinstance(said, bytes) else json.dumps(said).replace("{issuer}", provider.issuer).encode()
    provider.answers[DISCOVERY] = lambda: (200, {}, text)
    assert status_of(api, provider.token(person.email)) == 503
    assert provider.fetches[JWKS] == 0


def test_a_provider_behind_https_gives_no_keys_without_it(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even on this machine: the provider could otherwise read local services."""
    issuer = "https://id.example"
    asked = []

    def said(url: str) -> Any:
        asked.append(url)
        return {"issuer": issuer, "jwks_uri": provider.discovery()["jwks_uri"]}

    monkeypatch.setattr(jwks_client, "_read_json", said)
    with pytest.raises(ValueError, match="https"):
        jwks_client.fetch_keys(issuer)
    assert asked == [f"{issuer}/.well-known/openid-configuration"]


def test_a_provider_elsewhere_is_asked_by_https_only() -> None:
    with pytest.raises(ValueError, match="https"):
        jwks_client.fetch_keys("http://id.example")


@pytest.mark.parametrize(
    "text", [b'{"keys": [', b'{"keys": []}', b"{}", b"[]", b"null", b'{"keys": [{"kty": "RSA"}]}', b'{"keys": [5]}']
)
def test_keys_that_are_none_are_as_good_as_none(api: Api, provider: Provider, person: Person, text: bytes) -> None:
    provider.answers[JWKS] = lambda: (200, {}, text)
    assert status_of(api, provider.token(person.email)) == 503


@pytest.mark.parametrize("path", [DISCOVERY, JWKS])
def test_no_more_is_read_than_a_provider_needs_to_say(api: Api, provider: Provider, person: Person, path: str) -> None:
    right = provider.answer(path)[2]
    provider.answers[path] = lambda: (200, {}, right + b" " * jwks_client.MAX_BYTES)
    assert status_of(api, provider.token(person.email)) == 503


def test_a_key_of_a_kind_we_do_not_know_does_not_spoil_the_others(api: Api, provider: Provider, person: Person) -> None:
    published = {"keys": [{"kty": "AKP", "alg": "ML-DSA-44", "kid": "pq"}, *provider.jwks()["keys"]]}
    provider.answers[JWKS] = lambda: (200, {}, json.dumps(published).encode())
    assert status_of(api, provider.token(person.email)) == 200
