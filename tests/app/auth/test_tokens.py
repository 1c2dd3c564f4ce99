"""An access token holds only as it was issued: every forgery tried here is refused alike.

Tokens are forged with the standard library's HMAC, not with the code that checks them.
"""

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from time import time
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask

from app.auth import tokens
from app.auth.errors import BadToken
from app.auth.tokens import TokenMint
from tenant_schemas.testing import Database
from tests.app.test_problems import problem_of
from tests.conftest import SECRET_KEY
from tests.factories.api import Api
from tests.factories.people import People, Person

KEY = f"access-token:{SECRET_KEY}"
HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


def encoded(part: bytes | Any) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return urlsafe_b64encode(raw).decode().rstrip("=")


def forged(claims: Any, *, header: Any = None, key: str = KEY, algorithm: str = "HS256") -> str:
    """A token signed by hand."""
    signed = encoded({"alg": algorithm, "typ": "JWT"} if header is None else header) + "." + encoded(claims)
    return signed + "." + encoded(hmac.new(key.encode(), signed.encode(), HASHES[algorithm]).digest())


def claims_of(user_id: UUID, **changed: Any) -> dict[str, Any]:
    """Right claims but for what is changed; None leaves one out."""
    now = int(time())
    right = {"iss": "schema-wallet", "aud": "schema-wallet-api", "sub": str(user_id), "iat": now, "exp": now + 900}
    return {name: value for name, value in (right | changed).items() if value is not None}


@pytest.fixture
def person(people: People) -> Person:
    return people.make(eur="member", km="member")


def refuse(api: Api, token: str) -> None:
    for path in ("/api/me", "/api/eur/wallet", "/api/km/wallet", "/api/km/admin/wallets"):
        response = api.get(path, headers={"Authorization": f"Bearer {token}"})
        problem_of(response, 401, "bad_token")
        assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_token_signed_by_hand_with_right_claims_is_taken(api: Api, person: Person) -> None:
    """The control: what follows is refused for its fault alone."""
    for scheme in ("Bearer", "bearer", "BEARER"):
        sent = {"Authorization": f"{scheme} {forged(claims_of(person.user_id))}"}
        assert api.get("/api/me", headers=sent).json["userId"] == str(person.user_id)
        assert api.get("/api/wallet", tenant="km", headers=sent).json["tenantId"] == "km"


@pytest.mark.parametrize("slug", ["eur", "km"])
def test_a_token_that_was_issued_is_read_back(app: Flask, database: Database, slug: str) -> None:
    mint, user_id, tenant_id = TokenMint(SECRET_KEY, 60), uuid4(), database.tenant(slug).id
    token = mint.check(mint.issue(user_id, tenant_id))
    assert (token.user_id, token.claims["tenant"]) == (user_id, str(tenant_id))
    assert "tenant" not in mint.check(mint.issue(user_id, None)).claims
    assert token.claims["exp"] - token.claims["iat"] == 60
    assert mint.issue(user_id, None) != mint.issue(user_id, None), "each has an id of its own"


CLAIMS: dict[str, dict[str, Any]] = {
    "expired": {"exp": int(time()) - 1},
    "expired long ago": {"exp": 0},
    "no expiry": {"exp": None},
    "an expiry that is text": {"exp": "9999999999"},
    "an expiry that is no number": {"exp": "never"},
    "an expiry that is true": {"exp": []},
    "not yet": {"nbf": int(time()) + 600},
    "no time of issue": {"iat": None},
    "issued in the future": {"iat": int(time()) + 600},
    "another issuer": {"iss": "somebody"},
    "no issuer": {"iss": None},
    "another audience": {"aud": "schema-wallet"},
    "other audiences": {"aud": ["a", "b"]},
    "no audience": {"aud": None},
    "no subject": {"sub": None},
    "a subject that is no uuid": {"sub": "admin"},
    "an empty subject": {"sub": ""},
    "a subject that is a number": {"sub": 1},
    "a subject that is a list": {"sub": [str(UUID(int=0))]},
    "a user nobody is": {"sub": str(UUID(int=0))},
    "a tenant that is a slug": {"tenant": "km"},
    "an empty tenant": {"tenant": ""},
    "a tenant that is a number": {"tenant": 0},
    "a tenant that is false": {"tenant": False},
    "tenants in a list": {"tenant": [str(UUID(int=0))]},
    "a tenant that is an object": {"tenant": {}},
}


@pytest.mark.parametrize("what", CLAIMS)
def test_a_token_with_a_wrong_claim_is_refused(api: Api, person: Person, what: str) -> None:
    refuse(api, forged(claims_of(person.user_id, **CLAIMS[what])))


@pytest.mark.parametrize("claims", [[], "x", None, 5, b"", b"{", b"\xff"], ids=repr)
def test_a_token_whose_claims_are_no_object_is_refused(api: Api, claims: Any) -> None:
    refuse(api, forged(claims))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_another_algorithm_with_the_right_key_is_refused(api: Api, person: Person, algorithm: str) -> None:
    refuse(api, forged(claims_of(person.user_id), algorithm=algorithm))


ALGORITHMS: list[Any] = ["none", "None", "NONE", "nOnE", "", "HS256 ", "hs256", "RS256", "dir", None, 1, []]


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=repr)
def test_a_token_that_says_it_needs_no_signature_or_another_is_refused(
    api: Api, person: Person, algorithm: Any
) -> None:
    header = {"alg": algorithm, "typ": "JWT"}
    unsigned = f"{encoded(header)}.{encoded(claims_of(person.user_id))}."
    refuse(api, unsigned)
    refuse(api, unsigned.rstrip("."))
    refuse(api, forged(claims_of(person.user_id), header=header))


HEADERS: dict[str, Any] = {
    "empty": {},
    "a list": [],
    "a number": 5,
    "null": b"null",
    "no JSON": b"{",
    "deep": b"[" * 5_000,
    "an extension we do not know": {"alg": "HS256", "crit": ["exp"], "exp": 1},
    "an unencoded payload": {"alg": "HS256", "b64": False, "crit": ["b64"]},
    "a key of its own": {"alg": "HS256", "jwk": {"kty": "oct", "k": encoded(b"attacker's key of 32 characters.")}},
    "a key elsewhere": {"alg": "HS256", "jku": "https://attacker.example/keys", "kid": "../../dev/null"},
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_token_with_a_wrong_header_is_refused(api: Api, person: Person, what: str) -> None:
    """Signed with an attacker's key, so nothing in the header may point at that key."""
    token = forged(claims_of(person.user_id), header=HEADERS[what], key="attacker's key of 32 characters.")
    refuse(api, token)


@pytest.mark.parametrize("key", ["", SECRET_KEY, "access-token:", KEY + "x", KEY.upper(), "cursor:" + SECRET_KEY])
def test_a_token_signed_with_another_key_is_refused(api: Api, person: Person, key: str) -> None:
    refuse(api, forged(claims_of(person.user_id), key=key))


def test_a_token_that_was_changed_is_refused(api: Api, person: Person, people: People) -> None:
    """The payload of one token under the signature of another, and each part cut, doubled or swapped."""
    other = people.make(eur="admin", km="admin")
    header, payload, signature = person.token.split(".")
    _, others_payload, others_signature = other.token.split(".")
    claims = json.loads(urlsafe_b64decode(payload + "=="))
    for changed in (
        f"{header}.{others_payload}.{signature}",
        f"{header}.{payload}.{others_signature}",
        f"{header}.{encoded(claims | {'sub': str(other.user_id)})}.{signature}",
        f"{header}.{encoded(claims | {'exp': claims['exp'] + 1})}.{signature}",
        f"{header}.{payload}.{signature[:-2]}",
        f"{header}.{payload}.{signature[::-1]}",
        f"{header}.{payload}.",
        f"{header}.{payload}",
        f"{header}..{signature}",
        f".{payload}.{signature}",
        f"{header}.{payload}.{signature}.{signature}",
        f"{header}.{payload}.{signature}.x.y",
        f"{payload}.{header}.{signature}",
    ):
        refuse(api, changed)


GARBAGE = ["x", "...", "a.b.c", "é.é.é", "null", "{}", "a b c", "\x00", "%", "Bearer x"]


@pytest.mark.parametrize("token", GARBAGE, ids=ascii)
def test_garbage_is_refused(api: Api, token: str) -> None:
    refuse(api, token)
    refuse(api, token * 10_000)


@pytest.mark.parametrize("sent", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Token {}", "{}", "Bearer{}"])
def test_a_request_without_a_bearer_token_is_told_to_log_in(api: Api, person: Person, sent: str | None) -> None:
    headers = {} if sent is None else {"Authorization": sent.format(person.token)}
    for path in ("/api/me", "/api/eur/wallet", f"/api/km/wallet/transactions?access_token={person.token}"):
        response = api.get(path, headers=headers)
        problem_of(response, 401, "token_required")
        assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_token_of_another_installation_is_refused() -> None:
    token = TokenMint("a" * 32, 60).issue(uuid4(), None)
    with pytest.raises(BadToken):
        TokenMint("b" * 32, 60).check(token)
    assert TokenMint("a" * 32, 60).check(token)


def test_a_token_holds_for_its_lifetime_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    mint = TokenMint(SECRET_KEY, 60)
    now = time()
    monkeypatch.setattr(tokens, "time", lambda: now - 59)
    nearly = mint.issue(uuid4(), None)
    monkeypatch.setattr(tokens, "time", lambda: now - 61)
    over = mint.issue(uuid4(), None)
    assert mint.check(nearly)
    with pytest.raises(BadToken):
        mint.check(over)
