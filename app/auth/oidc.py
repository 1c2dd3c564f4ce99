"""Access tokens of one external OpenID provider. A token's verified e-mail address names the active user of this
service.

A claim is used only after the token's signature is verified with a key that the provider publishes, by an asymmetric
algorithm that the settings allow. No claim of the provider chooses a tenant.
"""

import json
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwt import JWTClaimsRegistry

from app.auth.errors import TokenExpired, TokenInvalid
from app.auth.jwks_client import ProviderKeys
from app.auth.tokens import Token
from app.users.service import credentials
from tenant_schemas import base64url

LEEWAY_SECONDS: Final = 30  # The two clocks may differ.


class OpenIdProvider:
    """Checks the tokens of one issuer for one audience."""

    def __init__(self, issuer: str, audience: str, algorithms: tuple[str, ...]) -> None:
        self.issuer = issuer
        self._audience = audience
        self._keys = ProviderKeys(issuer)
        self._algorithms = algorithms
        self._rules = JWTClaimsRegistry(
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            email={"essential": True},
        )

    def issued(self, text: str) -> bool:
        """Whether the token claims to come from this provider. It verifies nothing; it only chooses which
        check runs.
        """
        try:
            payload = text.split(".")[1]
            return bool(json.loads(base64url.decode(payload))["iss"] == self.issuer)
        except (LookupError, ValueError, TypeError, RecursionError):
            return False

    def check(self, text: str) -> Token:
        """The user named by the verified token. Raises TokenInvalid, TokenExpired, or ProviderUnavailable if no key of
        the provider is known.
        """
        try:
            claims = self._verified_claims(text)
        except ExpiredTokenError:  # Its signature is verified before its claims are.
            raise TokenExpired("The access token has expired; get a new one from the identity provider.") from None
        except (JoseError, ValueError, TypeError, AttributeError, RecursionError):
            claims = {}
        email = _address(claims) if claims else None
        known = credentials(email) if email else None
        if known is None or not known.is_active:
            raise TokenInvalid("The access token is not valid; log in again.")
        return Token(known.user_id, None, {"amr": _methods(claims), "exp": claims["exp"]})

    def _verified_claims(self, text: str) -> dict[str, Any]:
        """Empty for a token that another party of the audience may have."""
        claims = jwt.decode(text, self._key_of, algorithms=self._algorithms).claims
        self._rules.validate(claims)
        audience = claims["aud"]
        if isinstance(audience, list) and len(audience) > 1 and claims.get("azp") != self._audience:
            return {}
        return dict(claims)

    def _key_of(self, token: Any) -> Any:
        kid = token.headers().get("kid")
        return self._keys.find(kid) if isinstance(kid, str) else None


def _address(claims: dict[str, Any]) -> str | None:
    """The verified address, in lower case; None without one. ASCII only: lower-casing maps other letters to ASCII, so
    an address with a Kelvin sign would match another user's address with a k.
    """
    email = claims["email"]
    if claims.get("email_verified") is not True or not isinstance(email, str):
        return None
    return email.lower() if email.isascii() and email.isprintable() else None


def _methods(claims: dict[str, Any]) -> tuple[str, ...]:
    """How the provider authenticated the user (RFC 8176): `mfa` means by more than one factor."""
    told = claims.get("amr")
    return tuple(method for method in told if isinstance(method, str)) if isinstance(told, list) else ()
