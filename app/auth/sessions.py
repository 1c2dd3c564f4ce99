"""Sessions: a log-in starts one, refresh tokens continue it, and a log-out, a new password or a stolen token ends it.

A refresh token works once. A second use means that the token was copied, and the service can't tell which client is the
thief, so the session ends for both (RFC 9700, 4.14.2). A client that lost the answer, or that refreshes twice at once,
must log in again too. All of it is in the shared schema.
"""

from dataclasses import dataclass
from hashlib import sha256
from secrets import token_urlsafe
from typing import Final
from uuid import UUID, uuid4

import sqlalchemy as sa
import structlog

from app.auth.errors import BadCredentials, BadRefreshToken
from app.auth.models import Session
from app.db import db
from tenant_schemas.flask import connections

log = structlog.get_logger(__name__)

SECRET_BYTES: Final = 32
PRUNED_AT_ONCE: Final = 1000
MAX_USER_AGENT: Final = 300

# FOR SHARE: a log-in with the old password waits for a change of the password, and then finds it wrong.
_START: Final = """
    WITH known AS (
        SELECT id FROM shared.users WHERE id = %s AND status = 'active' AND password_hash = %s FOR SHARE
    ), started AS (
        INSERT INTO shared.sessions (id, user_id, tenant_id, expires_at, user_agent, second_factor_at)
        SELECT %s, id, %s, now() + make_interval(secs => %s), %s, CASE WHEN %s THEN now() END FROM known RETURNING id
    )
    INSERT INTO shared.refresh_tokens (token_hash, session_id) SELECT %s, id FROM started RETURNING session_id"""
# The second of two simultaneous calls waits for the first's row lock, and then finds the token used.
_REFRESH: Final = """
    WITH used AS (
        UPDATE shared.refresh_tokens r SET used_at = now()
        FROM shared.sessions s JOIN shared.users u ON u.id = s.user_id
        WHERE r.token_hash = %s AND r.used_at IS NULL AND s.id = r.session_id
            AND s.ended_at IS NULL AND s.expires_at > now() AND u.status = 'active'
        RETURNING s.id, s.user_id, s.tenant_id, floor(extract(epoch FROM s.expires_at - now()))::integer AS seconds
    ), made AS (
        INSERT INTO shared.refresh_tokens (token_hash, session_id) SELECT %s, id FROM used
    )
    SELECT id, user_id, tenant_id, seconds FROM used"""
_END_REUSED: Final = """
    UPDATE shared.sessions s SET ended_at = now(), end_reason = 'reuse'
    FROM shared.refresh_tokens r
    WHERE r.token_hash = %s AND r.used_at IS NOT NULL AND s.id = r.session_id AND s.ended_at IS NULL
    RETURNING s.id, s.user_id"""
_PRUNE: Final = """
    DELETE FROM shared.sessions WHERE id IN (
        SELECT id FROM shared.sessions WHERE expires_at < now() - make_interval(days => %s)
        ORDER BY expires_at LIMIT %s) RETURNING id"""


@dataclass(frozen=True, slots=True)
class Grant:
    """A session with its remaining seconds, and its next refresh token, which only this answer contains."""

    session_id: UUID
    user_id: UUID
    tenant_id: UUID | None
    refresh_token: str
    seconds_left: int


def start_session(
    user_id: UUID,
    password_hash: str | None,
    tenant_id: UUID | None,
    lifetime_seconds: int,
    *,
    user_agent: str | None = None,
    has_second_factor: bool = False,
) -> Grant:
    """Start a session of the user if the password hash is still this one. Committed when it returns. Raises
    BadCredentials if the user or the password has changed.
    """
    session_id = uuid4()
    token = _new_token(session_id)
    of_client = (_shown(user_agent), has_second_factor)
    told = (user_id, password_hash, session_id, tenant_id, lifetime_seconds, *of_client, _hash(token))
    if not connections().shared.one_statement(_START, told):
        raise BadCredentials("The e-mail address or the password is wrong.")
    return Grant(session_id, user_id, tenant_id, token, lifetime_seconds)


def refresh_session(token: str) -> Grant:
    """Trade a refresh token for the next one. Locks the token's row; committed when it returns. Raises BadRefreshToken
    for every reason; a token that was used before also ends its session and is logged.
    """
    session_id = session_of(token)
    following = _new_token(session_id)
    rows = connections().shared.one_statement(_REFRESH, (_hash(token), _hash(following)))
    if not rows:
        _end_if_reused(token)
        raise BadRefreshToken("The refresh token is not valid, was used, or its session is over; log in again.")
    found_id, user_id, tenant_id, seconds_left = rows[0]
    return Grant(found_id, user_id, tenant_id, following, seconds_left)


def session_of(token: str) -> UUID:
    """The session id that a refresh token carries. It is unverified until the token's hash is found. Raises
    BadRefreshToken.
    """
    try:
        return UUID(hex=token.partition(".")[0])
    except ValueError:
        raise BadRefreshToken("This is not a refresh token; log in again.") from None


def _end_if_reused(token: str) -> None:
    for session_id, user_id in connections().shared.one_statement(_END_REUSED, (_hash(token),)):
        log.warning("refresh_token_reused", session_id=str(session_id), user_id=str(user_id))


def end_session(session_id: UUID) -> None:
    """End the session after a log-out, if it has not ended. Its access tokens are refused from the next request on."""
    _end(Session.id == session_id, "logout")


def end_other_sessions(user_id: UUID, kept: UUID | None, reason: str = "password") -> None:
    """End the user's other sessions after a change of the password, or because the user asks for it (`logout`)."""
    others = Session.user_id == user_id
    _end(others if kept is None else others & (Session.id != kept), reason)


def _end(which: sa.ColumnElement[bool], reason: str) -> None:
    ended = sa.update(Session).where(which, Session.ended_at.is_(None))
    db.session.execute(ended.values(ended_at=sa.func.now(), end_reason=reason))


def prune_sessions(days: int) -> int:
    """Delete the sessions that ended this many days ago, with their refresh tokens. Works in batches and
    commits each.
    """
    count = 0
    while batch := len(connections().shared.one_statement(_PRUNE, (days, PRUNED_AT_ONCE))):
        count += batch
    return count


def _shown(user_agent: str | None) -> str | None:
    """The client's name of itself, as the list of sessions shows it."""
    return "".join(filter(str.isprintable, user_agent or ""))[:MAX_USER_AGENT] or None


def _new_token(session_id: UUID) -> str:
    """A new refresh token: the session's id, which lets the CSRF check run before the database is asked, and the
    secret.
    """
    return f"{session_id.hex}.{token_urlsafe(SECRET_BYTES)}"


def _hash(token: str) -> bytes:
    return sha256(token.encode()).digest()
