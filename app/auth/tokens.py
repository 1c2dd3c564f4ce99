"""Access tokens: short-lived JWTs (RFC 7519), signed with HS256 and with nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from time import time
from typing import Any
from uuid import UUID, uuid4

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from joserfc.jwt import JWTClaimsRegistry

from app.auth.errors import BadToken

ALGORITHM = "HS256"
ISSUER = "schema-wallet"
AUDIENCE = "schema-wallet-api"


@dataclass(frozen=True, slots=True)
class Token:
    """What a token that was checked says: who, and for which tenant if for one."""

    user_id: UUID
    claims: Mapping[str, Any]


class TokenMint:
    """Issues and checks the tokens of one signing key."""

    def __init__(self, secret_key: str, lifetime_seconds: int) -> None:
        self._key = OctKey.import_key(f"access-token:{secret_key}")
        self.lifetime_seconds = lifetime_seconds
        self._rules = JWTClaimsRegistry(
            iss={"essential": True, "value": ISSUER},
            aud={"essential": True, "value": AUDIENCE},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )

    def issue(self, user_id: UUID, tenant_id: UUID | None) -> str:
        now = int(time())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "iat": now,
            "exp": now + self.lifetime_seconds,
            "jti": str(uuid4()),
        }
        if tenant_id is not None:
            claims["tenant"] = str(tenant_id)
        return jwt.encode({"alg": ALGORITHM, "typ": "JWT"}, claims, self._key, algorithms=[ALGORITHM])

    def check(self, text: str) -> Token:
        """Signature, algorithm, issuer, audience and expiry all hold, or BadToken is raised."""
        try:
            claims = jwt.decode(text, self._key, algorithms=[ALGORITHM]).claims
            self._rules.validate(claims)
            if claims.get("tenant") is not None:
                UUID(claims["tenant"])
            return Token(UUID(claims["sub"]), claims)
        except (JoseError, ValueError, TypeError, AttributeError):
            raise BadToken("The access token is not valid or has expired; log in again.") from None
