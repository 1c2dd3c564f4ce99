"""Access tokens: short-lived JWTs (RFC 7519) of one session, signed with Ed25519 only."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from time import time
from typing import Any, Final
from uuid import UUID, uuid4

from joserfc import jwt
from joserfc.errors import InvalidClaimError, JoseError
from joserfc.jwt import JWTClaimsRegistry

from app.auth.errors import TokenExpired, TokenInvalid
from app.current import current_app
from app.signing_keys import ALGORITHM, KeyRing, KeySource, header_of

ISSUER: Final = "schema-wallet"
AUDIENCE: Final = "schema-wallet-api"
MAX_LENGTH: Final = 2048
# Verifying Ed25519 costs six times HS256, and a client sends a token many times: so this many results are cached.
REMEMBERED_TOKENS: Final = 4096


@dataclass(frozen=True, slots=True)
class Token:
    """The claims of a verified token: user, session, and tenant if it is valid for one only. An OpenID provider's token
    has no session in this service.
    """

    user_id: UUID
    session_id: UUID | None
    claims: Mapping[str, Any]


class _ClaimRules(JWTClaimsRegistry):
    """The registry's rules; whether a token has expired is asked at each use, because its claims are cached."""

    def validate_exp(self, value: object) -> None:
        if type(value) is not int:
            raise InvalidClaimError("exp")


class _NoRepeats(json.JSONDecoder):
    """A JSON decoder that refuses repeated keys: two readers could otherwise see two different tokens."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=_object_without_repeats)


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a claim is repeated")
    return made


class TokenMint:
    """Issues tokens with the newest key and verifies the tokens of all keys."""

    def __init__(self, keys: KeySource, lifetime_seconds: int) -> None:
        self.keys = keys
        self.lifetime_seconds = lifetime_seconds
        self._rules = _ClaimRules(
            iss={"essential": True, "value": ISSUER},
            aud={"essential": True, "value": AUDIENCE},
            sub={"essential": True},
            sid={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )
        # The key ring is part of the cache key, so dropping a key drops its tokens. Refusals are not cached.
        self._verified = lru_cache(REMEMBERED_TOKENS)(self._verify)

    def issue(
        self, user_id: UUID, tenant_id: UUID | None, session_id: UUID, *, lifetime_seconds: int | None = None
    ) -> str:
        """A token of this session, for the tenant if there is one. It lives for the configured time unless
        `lifetime_seconds` is given.
        """
        now = int(time())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "sid": str(session_id),
            "iat": now,
            "exp": now + (self.lifetime_seconds if lifetime_seconds is None else lifetime_seconds),
            "jti": str(uuid4()),
        }
        if tenant_id is not None:
            claims["tenant"] = str(tenant_id)
        signer = self.keys().signer()
        return jwt.encode(header_of(signer.kid), claims, signer.pair, algorithms=[ALGORITHM], default_type=None)

    def check(self, text: str) -> Token:
        """Verify signature, key, issuer, audience and expiry. Raises TokenInvalid or TokenExpired. Whether the session
        still exists is checked in the database.
        """
        token = self.read(text)
        if token.claims["exp"] <= time():
            raise TokenExpired("The access token has expired; refresh it at POST /api/auth/refresh.")
        return token

    def read(self, text: str) -> Token:
        """As `check`, but an expired token is read too: it still names its session. Raises TokenInvalid."""
        try:
            token = self._verified(self.keys(), text) if len(text) <= MAX_LENGTH else None
        except (JoseError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
            token = None
        if token is None:
            raise TokenInvalid("The access token is not valid; log in again.")
        return token

    def _verify(self, ring: KeyRing, text: str) -> Token:
        key = ring.by_header[text.partition(".")[0]]
        claims = jwt.decode(text, key, algorithms=[ALGORITHM], decoder_cls=_NoRepeats).claims
        self._rules.validate(claims)
        if claims["aud"] != AUDIENCE:
            raise ValueError("ours are for one audience")
        if claims.get("tenant") is not None:
            UUID(claims["tenant"])
        return Token(UUID(claims["sub"]), UUID(claims["sid"]), claims)


def current_mint() -> TokenMint:
    """The token mint of the current application."""
    mint: TokenMint = current_app.extensions["token_mint"]
    return mint
