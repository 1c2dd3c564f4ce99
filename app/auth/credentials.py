"""The credential of a request: an access token in the Authorization header or a cookie, or an API key."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final, cast
from uuid import UUID

from flask import Request

from app.auth.cookies import ACCESS_COOKIE, CSRF_COOKIE, refuse_forgery
from app.auth.errors import SessionRequired, TokenExpired, TokenInvalid, TokenMissing
from app.auth.oidc import OpenIdProvider
from app.auth.tokens import Token, current_mint
from app.current import current_app, g

KEY_PREFIX: Final = "wk_"
LOG_IN: Final = "Log in at POST /api/auth/login and send Authorization: Bearer <accessToken>."
NO_KEY: Final = "This API key is unknown, revoked or expired; ask an admin of the tenant for another."


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as the request presents it: its id and the hash of its secret."""

    key_id: UUID
    secret_hash: bytes


def presented_credential(request: Request) -> Token | ApiKey:
    """The request's credential, checked without the database; only an OpenID provider's token needs one look-up,
    because it names its user by address. An Authorization header has precedence over a cookie.

    Raises TokenMissing, TokenInvalid, TokenExpired, CsrfRequired, ProviderUnavailable.
    """
    header = request.headers.get("Authorization")
    credential = _from_cookie(request) if header is None else _from_header(header)
    g.credential = credential
    return credential


def presented_session() -> UUID | None:
    """The session of the current user's token; None for an OpenID provider's token."""
    return cast(UUID | None, g.credential.session_id)


def session_of_header(header: str) -> UUID | None:
    """The session of the access token in this Authorization header, also of an expired one. None for what is no access
    token of this service.
    """
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "bearer":
        return None
    try:
        return current_mint().read(text.strip()).session_id
    except TokenInvalid:
        return None


def refuse_provider_token(header: str) -> None:
    """Raises SessionRequired for an OpenID provider's token in this Authorization header."""
    scheme, _, text = header.partition(" ")
    provider: OpenIdProvider | None = current_app.extensions.get("openid_provider")
    if scheme.lower() == "bearer" and provider and provider.issued(text.strip()):
        raise SessionRequired("This access token is the identity provider's; end its session there.")


def _from_header(header: str) -> Token | ApiKey:
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "bearer" or not text:
        raise TokenMissing(LOG_IN)
    if text.startswith(KEY_PREFIX):
        return _api_key(text.strip())
    provider: OpenIdProvider | None = current_app.extensions.get("openid_provider")
    if provider and provider.issued(text.strip()):
        return provider.check(text.strip())
    return current_mint().check(text.strip())


def _from_cookie(request: Request) -> Token:
    """The cookie of the access token ends with the token, that of the CSRF token with the session."""
    text = request.cookies.get(ACCESS_COOKIE)
    if not text and request.cookies.get(CSRF_COOKIE):
        raise TokenExpired("The cookie of the access token has expired; refresh it at POST /api/auth/refresh.")
    if not text:
        raise TokenMissing(LOG_IN)
    token = current_mint().check(text)
    if token.session_id is None:
        raise TokenInvalid("The access token has no session; log in again.")
    refuse_forgery(request, token.session_id)
    return token


def _api_key(text: str) -> ApiKey:
    """`wk_<id>_<secret>`; the id is a UUID's 32 hexadecimal digits."""
    key_id, _, secret = text.removeprefix(KEY_PREFIX).partition("_")
    try:
        return ApiKey(UUID(hex=key_id), sha256(secret.encode()).digest())
    except ValueError:
        raise TokenInvalid(NO_KEY) from None
