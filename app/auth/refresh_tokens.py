"""Refresh tokens, as text: `<session>.<secret>.<tag>`. Only a hash of the first two parts is stored.

The tag is an HMAC. It proves without the database that this service made the token for that session. So a refresh is
counted for its session before the database is asked, and a stranger who knows the session's id can't use up its
refreshes. A token without a right tag, from an earlier release or before SECRET_KEY changed, is still valid.
"""

import hmac
from hashlib import sha256
from secrets import token_bytes
from typing import Final
from uuid import UUID

from app.auth.errors import TokenInvalid
from app.derived_keys import mac_of
from tenant_schemas import base64url

SECRET_BYTES: Final = 32
SALT_BYTES: Final = 16
TAG_BYTES: Final = 16


def new_token(session_id: UUID) -> str:
    """The first token of a session: it is random."""
    return _token(session_id.hex, token_bytes(SECRET_BYTES))


def successor_of(token: str, salt: bytes) -> str:
    """The token that follows this one. It needs the salt of the used token's row, the used token and SECRET_KEY, so
    none of them alone tells it, and it is the same in every process.
    """
    session, secret, _ = _parts(token)
    return _token(session, mac_of("refresh successor", salt + f"{session}.{secret}".encode()))


def new_salt() -> bytes:
    return token_bytes(SALT_BYTES)


def session_of(token: str) -> UUID:
    """The session id that a token carries. It is unverified. Raises TokenInvalid."""
    try:
        return UUID(hex=_parts(token)[0])
    except ValueError:
        raise TokenInvalid("This is not a refresh token; log in again.") from None


def proven_session_of(token: str) -> UUID | None:
    """The session for which this service made the token, proved by its tag; None without a right tag. Whether the
    token and its session are still valid is known to the database.
    """
    session, secret, tag = _parts(token)
    is_proven = hmac.compare_digest(tag.encode(), _tag(session, secret).encode())
    return UUID(hex=session) if is_proven else None


def hash_of(token: str) -> bytes:
    session, secret, _ = _parts(token)
    return sha256(f"{session}.{secret}".encode()).digest()


def _parts(token: str) -> tuple[str, str, str]:
    session, _, rest = token.partition(".")
    secret, _, tag = rest.partition(".")
    return session, secret, tag


def _token(session: str, secret: bytes) -> str:
    text = base64url.encode(secret)
    return f"{session}.{text}.{_tag(session, text)}"


def _tag(session: str, secret: str) -> str:
    return base64url.encode(mac_of("refresh tag", f"{session}.{secret}".encode())[:TAG_BYTES])
