"""Sessions: a log-in starts one, refresh tokens continue it, and a log-out, a new password or a stolen token ends it.

A refresh token is used once. For REFRESH_OVERLAP_SECONDS after its first use it is still answered, with the newest
token of its session: a second tab, a reload or a client that lost the answer goes on with the same token as the first.
A later use means that the token was copied, and the service can't tell which client is the thief, so the session ends
for both (RFC 9700, 4.14.2). All of it is in the shared schema.
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

import sqlalchemy as sa
import structlog

from app.auth import refresh_tokens
from app.auth.errors import BadCredentials, SessionOver
from app.auth.models import Session
from app.auth.second_factor.errors import SecondFactorRequired
from app.db import db
from tenant_schemas.flask import connections

log = structlog.get_logger(__name__)

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
# Asked after the start, with a snapshot of its own: the start waits for a change of the account that is under way.
_HAS_FACTOR: Final = "SELECT FROM shared.second_factors WHERE user_id = %s AND confirmed_at IS NOT NULL"
# The second of two simultaneous calls waits for the first's row lock, and then finds the token used. The first call's
# salt is the one that counts.
_REFRESH: Final = """
    WITH used AS (
        UPDATE shared.refresh_tokens r SET used_at = now(), successor_salt = %s
        FROM shared.sessions s JOIN shared.users u ON u.id = s.user_id
        WHERE r.token_hash = %s AND r.used_at IS NULL AND s.id = r.session_id
            AND s.ended_at IS NULL AND s.expires_at > now() AND u.status = 'active'
        RETURNING s.id, s.user_id, s.tenant_id, floor(extract(epoch FROM s.expires_at - now()))::integer AS seconds
    ), made AS (
        INSERT INTO shared.refresh_tokens (token_hash, session_id) SELECT %s, id FROM used
    )
    SELECT id, user_id, tenant_id, seconds FROM used"""
# A token that is not used, or was first used so many seconds ago, of a session that lasts.
_FOLLOW: Final = """
    SELECT r.used_at IS NULL, r.successor_salt, s.id, s.user_id, s.tenant_id,
        floor(extract(epoch FROM s.expires_at - now()))::integer
    FROM shared.refresh_tokens r
    JOIN shared.sessions s ON s.id = r.session_id
    JOIN shared.users u ON u.id = s.user_id
    WHERE r.token_hash = %s AND (r.used_at IS NULL OR r.used_at > now() - make_interval(secs => %s))
        AND s.ended_at IS NULL AND s.expires_at > now() AND u.status = 'active'"""
_END_REUSED: Final = """
    UPDATE shared.sessions s SET ended_at = now(), end_reason = 'reuse'
    FROM shared.refresh_tokens r
    WHERE r.token_hash = %s AND r.used_at <= now() - make_interval(secs => %s)
        AND s.id = r.session_id AND s.ended_at IS NULL
    RETURNING s.id, s.user_id"""
_LOG_OUT: Final = """
    UPDATE shared.sessions s SET ended_at = now(), end_reason = 'logout'
    FROM shared.refresh_tokens r
    WHERE r.token_hash = %s AND s.id = r.session_id AND s.ended_at IS NULL"""
_LOG_OUT_BY_ID: Final = """
    UPDATE shared.sessions SET ended_at = now(), end_reason = 'logout' WHERE id = %s AND ended_at IS NULL"""
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
    """Start a session of the user if the password hash is still this one, and the user has no second factor that the
    log-in has not proved. Committed when it returns. Raises BadCredentials if the user or the password has changed, and
    SecondFactorRequired if a factor was confirmed meanwhile.
    """
    session_id = uuid4()
    token = refresh_tokens.new_token(session_id)
    of_client = (_shown(user_agent), has_second_factor)
    token_hash = refresh_tokens.hash_of(token)
    told = (user_id, password_hash, session_id, tenant_id, lifetime_seconds, *of_client, token_hash)
    if not connections().shared.one_statement(_START, told):
        raise BadCredentials("The e-mail address or the password is wrong.")
    if not has_second_factor and connections().shared.one_statement(_HAS_FACTOR, (user_id,), retry=True):
        end_session_at_once(session_id)
        raise SecondFactorRequired("Send the log-in again, with the code of your authenticator or a recovery code.")
    return Grant(session_id, user_id, tenant_id, token, lifetime_seconds)


def refresh_session(token: str, *, overlap_seconds: int) -> Grant:
    """Trade a refresh token for the next one. Within `overlap_seconds` of its first use the token gets the newest token
    of its session again. Locks the token's row; committed when it returns. Raises SessionOver for every reason; a token
    that was used before that also ends its session and is logged.
    """
    salt = refresh_tokens.new_salt()
    following = refresh_tokens.successor_of(token, salt)
    told = (salt, refresh_tokens.hash_of(token), refresh_tokens.hash_of(following))
    rows = connections().shared.one_statement(_REFRESH, told)
    if rows:
        found_id, user_id, tenant_id, seconds_left = rows[0]
        return Grant(found_id, user_id, tenant_id, following, seconds_left)
    newest = _newest_after(token, overlap_seconds)
    if newest is None:
        end_if_reused(token, overlap_seconds=overlap_seconds)
        raise SessionOver("The refresh token was used, or its session is over; log in again.")
    return newest


def _newest_after(token: str, overlap_seconds: int) -> Grant | None:
    """The session's newest token, found from one that was used just now. Who holds that one could refresh step by step
    to the same token; the only unused one also keeps a late answer from leaving a browser with a used token. None if
    the overlap or the session is over, or if SECRET_KEY has changed since the token's first use.
    """
    while rows := connections().shared.one_statement(_FOLLOW, (refresh_tokens.hash_of(token), overlap_seconds)):
        is_unused, salt, session_id, user_id, tenant_id, seconds_left = rows[0]
        if is_unused:
            return Grant(session_id, user_id, tenant_id, token, seconds_left)
        if salt is None:  # It was used by a process of an earlier release.
            return None
        token = refresh_tokens.successor_of(token, salt)
    return None


def end_if_reused(token: str, *, overlap_seconds: int) -> None:
    """End the session of a token that was first used more than `overlap_seconds` ago, and log it. Committed when it
    returns.
    """
    told = (refresh_tokens.hash_of(token), overlap_seconds)
    for session_id, user_id in connections().shared.one_statement(_END_REUSED, told):
        log.warning("refresh_token_reused", session_id=str(session_id), user_id=str(user_id))


def end_session_of(token: str) -> None:
    """End the session of this refresh token after a log-out, if it lasts; also with a used token. Committed when it
    returns.
    """
    connections().shared.one_statement(_LOG_OUT, (refresh_tokens.hash_of(token),))


def end_session_at_once(session_id: UUID) -> None:
    """As `end_session`; committed when it returns, so that a refusal of the request does not undo it."""
    connections().shared.one_statement(_LOG_OUT_BY_ID, (session_id,))


def end_session(session_id: UUID) -> None:
    """End the session after a log-out, if it has not ended. Its access tokens are refused from the next request on."""
    _end(Session.id == session_id, "logout")


def end_other_sessions(user_id: UUID, kept: UUID | None, reason: str = "password") -> None:
    """End the user's other sessions after a change of the password or a new second factor, or because the user asks for
    it (`logout`).
    """
    others = Session.user_id == user_id
    _end(others if kept is None else others & (Session.id != kept), reason)


def _end(which: sa.ColumnElement[bool], reason: str) -> None:
    ended = sa.update(Session).where(which, Session.ended_at.is_(None))
    db.session.execute(ended.values(ended_at=sa.func.now(), end_reason=reason))


def session_lasts(session_id: UUID) -> bool:
    """Whether the session has not ended."""
    return db.session.scalar(sa.select(Session.ended_at.is_(None)).where(Session.id == session_id)) or False


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
