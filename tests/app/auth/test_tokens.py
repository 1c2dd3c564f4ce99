"""An access token is valid only as issued: every forgery is refused alike.

Tokens are forged with bare primitives, not with the code under test.
"""

import hashlib
import hmac
import json
from collections.abc import Callable
from time import time
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask import Flask

from app.auth import tokens
from app.auth.errors import TokenExpired, TokenInvalid
from app.auth.tokens import TokenMint
from app.signing_keys import KeyRing, make_key, parse_keys
from tenant_schemas import base64url
from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of
from tests.conftest import SIGNING_KEY, SIGNING_KEYS
from tests.factories.api import Api
from tests.factories.people import People, Person

HEADER = {"typ": "JWT", "alg": "Ed25519", "kid": "tests"}
Sign = Callable[[bytes], bytes]


def encoded(part: bytes | Any) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode()
    return base64url.encode(raw)


KEY = Ed25519PrivateKey.from_private_bytes(base64url.decode(str(SIGNING_KEY["d"])))
ATTACKERS = Ed25519PrivateKey.generate()
ATTACKERS_JWK = {"kty": "OKP", "crv": "Ed25519", "x": encoded(ATTACKERS.public_key().public_bytes_raw())}


def forged(claims: Any, *, header: Any = None, sign: Sign = KEY.sign) -> str:
    """A token signed by hand."""
    signed = encoded(HEADER if header is None else header) + "." + encoded(claims)
    return signed + "." + encoded(sign(signed.encode()))


def claims_of(person: Person, **changed: Any) -> dict[str, Any]:
    """Valid claims of the person's own session, with some changed; None removes one."""
    now = int(time())
    session = json.loads(base64url.decode(person.token.split(".")[1]))["sid"]
    right = {"iss": "schema-wallet", "aud": "schema-wallet-api", "sub": str(person.user_id), "sid": session}
    return {
        name: value for name, value in (right | {"iat": now, "exp": now + 900} | changed).items() if value is not None
    }


def mint_of(*keys: Any) -> TokenMint:
    ring = KeyRing(keys) if keys else parse_keys(SIGNING_KEYS)
    return TokenMint(lambda: ring, 60)


@pytest.fixture
def person(people: People) -> Person:
    return people.make(eur="member", km="member")


def refuse(api: Api, token: str, code: str = "token_invalid") -> None:
    for path in ("/api/me", "/api/eur/wallet", "/api/km/wallet", "/api/km/admin/wallets"):
        response = api.get(path, headers={"Authorization": f"Bearer {token}"})
        detail = problem_of(response, 401, code)["detail"]
        assert response.headers["WWW-Authenticate"] == f'Bearer error="invalid_token", error_description="{detail}"'


def test_a_token_signed_by_hand_with_right_claims_is_taken(api: Api, person: Person) -> None:
    """The control: the other tokens are refused for their fault alone."""
    for scheme in ("Bearer", "bearer", "BEARER"):
        sent = {"Authorization": f"{scheme} {forged(claims_of(person))}"}
        assert api.get("/api/me", headers=sent).json["id"] == str(person.user_id)
        assert api.get("/api/wallet", tenant="km", headers=sent).json["tenantId"] == "km"


@pytest.mark.parametrize("slug", ["eur", "km"])
def test_a_token_that_was_issued_is_read_back(app: Flask, database: Database, slug: str) -> None:
    mint, user_id, session_id, tenant_id = mint_of(), uuid4(), uuid4(), database.tenant(slug).id
    token = mint.check(mint.issue(user_id, tenant_id, session_id))
    assert (token.user_id, token.session_id, token.claims["tenant"]) == (user_id, session_id, str(tenant_id))
    assert "tenant" not in mint.check(mint.issue(user_id, None, session_id)).claims
    assert token.claims["exp"] - token.claims["iat"] == 60
    shorter = mint.check(mint.issue(user_id, None, session_id, lifetime_seconds=5)).claims
    assert shorter["exp"] - shorter["iat"] == 5
    assert mint.issue(user_id, None, session_id) != mint.issue(user_id, None, session_id), "each has an id of its own"


CLAIMS: dict[str, dict[str, Any]] = {
    "expired": {"exp": int(time()) - 1},
    "expired long ago": {"exp": 0},
    "no expiry": {"exp": None},
    "an expiry that is text": {"exp": "9999999999"},
    "an expiry that is no number": {"exp": "never"},
    "an expiry that is a list": {"exp": []},
    "not yet": {"nbf": int(time()) + 600},
    "no time of issue": {"iat": None},
    "issued in the future": {"iat": int(time()) + 600},
    "another issuer": {"iss": "another"},
    "no issuer": {"iss": None},
    "another audience": {"aud": "schema-wallet"},
    "other audiences": {"aud": ["a", "b"]},
    "our audience among others": {"aud": ["schema-wallet-api", "b"]},
    "no audience": {"aud": None},
    "no subject": {"sub": None},
    "a subject that is no uuid": {"sub": "admin"},
    "an empty subject": {"sub": ""},
    "a subject that is a number": {"sub": 1},
    "a subject that is a list": {"sub": [str(UUID(int=0))]},
    "an unknown user": {"sub": str(UUID(int=0))},
    "no session": {"sid": None},
    "an empty session": {"sid": ""},
    "a session that is no uuid": {"sid": "1"},
    "a session that is a list": {"sid": [str(UUID(int=0))]},
    "a session that never was": {"sid": str(UUID(int=0))},
    "a tenant that is a slug": {"tenant": "km"},
    "an empty tenant": {"tenant": ""},
    "a tenant that is a number": {"tenant": 0},
    "a tenant that is false": {"tenant": False},
    "tenants in a list": {"tenant": [str(UUID(int=0))]},
    "a tenant that is an object": {"tenant": {}},
}


@pytest.mark.parametrize("what", CLAIMS)
def test_a_token_with_a_wrong_claim_is_refused(api: Api, person: Person, what: str) -> None:
    code = "token_expired" if what.startswith("expired") else "token_invalid"
    if what in {"an unknown user", "a session that never was"}:
        code = "session_over"
    refuse(api, forged(claims_of(person, **CLAIMS[what])), code)


def test_a_token_with_the_session_of_somebody_else_is_refused(api: Api, person: Person, people: People) -> None:
    other = people.make(eur="admin", km="admin")
    refuse(api, forged(claims_of(person, sid=claims_of(other)["sid"])), "session_over")


def test_an_expired_token_with_another_fault_is_not_worth_a_refresh(api: Api, person: Person) -> None:
    refuse(api, forged(claims_of(person, exp=0, aud="another")))
    refuse(api, forged(claims_of(person, exp=0), sign=ATTACKERS.sign))


def test_a_claim_that_is_given_twice_is_refused(api: Api, person: Person) -> None:
    """Also with equal values: readers of the first and of the last must see one token."""
    once = json.dumps(claims_of(person))
    for name in ("sub", "exp", "tenant", "more"):
        value = json.dumps(claims_of(person).get(name, str(UUID(int=0))))
        refuse(api, forged(f'{{"{name}": {value}, "{name}": {value}, {once[1:]}'.encode()))
    refuse(api, forged(f'{{"more": {{"a": 1, "a": 1}}, {once[1:]}'.encode()))


@pytest.mark.parametrize(
    "claims", [[], "x", None, 5, b"", b"{", b"\xff", b"[" * 1_000], ids=lambda each: repr(each)[:9]
)
def test_a_token_whose_claims_are_no_object_is_refused(api: Api, claims: Any) -> None:
    refuse(api, forged(claims))


ALGORITHMS: list[Any] = ["none", "None", "NONE", "nOnE", "", "EdDSA", "ed25519", "Ed448", "RS256", "dir", None, 1, []]


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=repr)
def test_a_token_that_says_it_needs_no_signature_or_another_is_refused(
    api: Api, person: Person, algorithm: Any
) -> None:
    header = HEADER | {"alg": algorithm}
    unsigned = f"{encoded(header)}.{encoded(claims_of(person))}."
    refuse(api, unsigned)
    refuse(api, unsigned.rstrip("."))
    refuse(api, forged(claims_of(person), header=header))


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_the_public_key_is_no_secret_key(api: Api, person: Person, algorithm: str) -> None:
    """Code that takes the algorithm from the token would verify an HMAC with the public key."""
    public = KEY.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    raw, x = public.public_bytes_raw(), str(SIGNING_KEY["x"]).encode()
    for secret in (pem, pem.strip(), raw, x, json.dumps(SIGNING_KEY).encode()):
        for header in (HEADER | {"alg": algorithm}, HEADER):
            sign = _hmac_with(secret, getattr(hashlib, f"sha{algorithm[2:]}"))
            refuse(api, forged(claims_of(person), header=header, sign=sign))


def _hmac_with(secret: bytes, digest: Any) -> Sign:
    return lambda message: hmac.new(secret, message, digest).digest()


HEADERS: dict[str, Any] = {
    "empty": {},
    "a list": [],
    "a number": 5,
    "null": b"null",
    "no JSON": b"{",
    "deep": b"[" * 1_000,
    "no kid": {"typ": "JWT", "alg": "Ed25519"},
    "an unknown kid": HEADER | {"kid": "another"},
    "an empty kid": HEADER | {"kid": ""},
    "a path for a kid": HEADER | {"kid": "../../../../dev/null"},
    "SQL for a kid": HEADER | {"kid": "tests' UNION SELECT 'x' --"},
    "a kid that is long": HEADER | {"kid": "tests" * 200},
    "a kid that is a number": HEADER | {"kid": 0},
    "kids in a list": HEADER | {"kid": ["tests"]},
    "a kid that is null": HEADER | {"kid": None},
    "two kids": b'{"typ":"JWT","alg":"Ed25519","kid":"another","kid":"tests"}',
    "two algorithms": b'{"typ":"JWT","alg":"none","alg":"Ed25519","kid":"tests"}',
    "an extension we do not know": HEADER | {"crit": ["exp"], "exp": 1},
    "an unencoded payload": HEADER | {"b64": False, "crit": ["b64"]},
    "an unencoded payload by the way": HEADER | {"b64": False},
    "a key of its own": HEADER | {"jwk": ATTACKERS_JWK},
    "a key elsewhere": HEADER | {"jku": "https://attacker.example/keys"},
    "a certificate": HEADER | {"x5c": [encoded(b"certificate")]},
    "a certificate elsewhere": HEADER | {"x5u": "https://attacker.example/certificate"},
    "another type": HEADER | {"typ": "at+jwt"},
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_token_with_a_wrong_header_is_refused_whoever_signed_it(api: Api, person: Person, what: str) -> None:
    for sign in (ATTACKERS.sign, KEY.sign):
        refuse(api, forged(claims_of(person), header=HEADERS[what], sign=sign))


def test_a_token_signed_with_another_key_is_refused(api: Api, person: Person) -> None:
    refuse(api, forged(claims_of(person), sign=ATTACKERS.sign))


def test_a_token_that_is_encrypted_is_refused(api: Api) -> None:
    header = encoded({"alg": "dir", "enc": "A128CBC-HS256", "kid": "tests"})
    refuse(api, f"{header}..{encoded(b'0' * 16)}.{encoded(b'1' * 32)}.{encoded(b'2' * 16)}")
    refuse(api, f"{encoded(HEADER)}..{encoded(b'0' * 16)}.{encoded(b'1' * 32)}.{encoded(b'2' * 16)}")


def test_a_token_that_was_changed_is_refused(api: Api, person: Person, people: People) -> None:
    """The payload of one token under the signature of another, and each part cut, doubled or swapped."""
    other = people.make(eur="admin", km="admin")
    header, payload, signature = person.token.split(".")
    _, others_payload, others_signature = other.token.split(".")
    claims = json.loads(base64url.decode(payload))
    for changed in (
        f"{header}.{others_payload}.{signature}",
        f"{header}.{payload}.{others_signature}",
        f"{header}.{encoded(claims | {'sub': str(other.user_id)})}.{signature}",
        f"{header}.{encoded(claims | {'exp': claims['exp'] + 1})}.{signature}",
        f"{header}.{encoded(claims | {'tenant': str(uuid4())})}.{signature}",
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


def test_a_token_whose_tenant_was_taken_out_is_refused(api: Api, people: People, database: Database) -> None:
    person = people.make(eur="member", km="member")
    header, payload, signature = people.token(person.user_id, database.tenant("eur").id).split(".")
    claims = json.loads(base64url.decode(payload))
    del claims["tenant"]
    refuse(api, f"{header}.{encoded(claims)}.{signature}")


def test_a_token_longer_than_any_of_ours_is_refused_unread(api: Api, person: Person) -> None:
    assert api.get("/api/me", headers={"Authorization": f"Bearer {forged(claims_of(person, more='x' * 900))}"}).json
    refuse(api, forged(claims_of(person, more="x" * 2_000)))


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
        problem_of(response, 401, "token_missing")
        assert response.headers["WWW-Authenticate"] == "Bearer"


def test_the_newest_key_signs_once_it_is_time_and_all_verify() -> None:
    old, new = make_key(0), make_key(int(time()) + 600)
    both, token = mint_of(new, old), mint_of(old).issue(uuid4(), None, uuid4())
    assert both.check(token)
    assert mint_of(old).check(both.issue(uuid4(), None, uuid4())), "signed by the old one as yet"
    due = mint_of(make_key(0), old)
    with pytest.raises(TokenInvalid):
        mint_of(old).check(due.issue(uuid4(), None, uuid4()))


def test_with_its_key_a_token_is_dropped_also_where_it_was_seen_before() -> None:
    old, new = make_key(0), make_key(0)
    rings = [KeyRing([old])]
    mint = TokenMint(lambda: rings[-1], 60)
    token = mint.issue(uuid4(), None, uuid4())
    assert mint.check(token)
    rings.append(KeyRing([new, old]))
    assert mint.check(token)
    rings.append(KeyRing([new]))
    with pytest.raises(TokenInvalid):
        mint.check(token)


def test_a_token_holds_for_its_lifetime_and_no_longer_also_where_it_was_seen_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mint, now = mint_of(), time()
    monkeypatch.setattr(tokens, "time", lambda: now - 61)
    over = mint.issue(uuid4(), None, uuid4())
    monkeypatch.setattr(tokens, "time", lambda: now - 50)
    nearly = mint.issue(uuid4(), None, uuid4())
    monkeypatch.setattr(tokens, "time", lambda: now)
    with pytest.raises(TokenExpired):
        mint.check(over)
    assert mint.check(nearly)
    monkeypatch.setattr(tokens, "time", lambda: now + 11)
    with pytest.raises(TokenExpired):
        mint.check(nearly)
