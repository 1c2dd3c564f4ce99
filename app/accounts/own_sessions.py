"""The sessions of a user, as the user sees and ends them. On the shared side; commits nothing."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.auth.errors import SessionNotFound
from app.auth.models import RefreshToken, Session
from app.auth.sessions import end_session
from app.db import db, tenants


def list_sessions(user_id: UUID, current: UUID | None, *, after: list[Any] | None, limit: int) -> list[sa.Row[Any]]:
    """The user's sessions that last, newest first; `after` is (started_at, id)."""
    last_used = sa.select(sa.func.max(RefreshToken.issued_at)).where(RefreshToken.session_id == Session.id)
    query = (
        sa.select(
            Session.id,
            tenants.c.slug.label("tenant_id"),
            Session.started_at,
            sa.func.coalesce(last_used.scalar_subquery(), Session.started_at).label("last_used_at"),
            Session.expires_at,
            Session.user_agent,
            Session.second_factor_at.is_not(None).label("has_second_factor"),
            (Session.id == current if current else sa.false()).label("is_current"),
        )
        .outerjoin(tenants, tenants.c.id == Session.tenant_id)
        .where(Session.user_id == user_id, *_lasts())
        .order_by(Session.started_at.desc(), Session.id.desc())
        .limit(limit)
    )
    if after is not None:
        position = sa.tuple_(sa.literal(datetime.fromisoformat(after[0])), sa.literal(UUID(after[1])))
        query = query.where(sa.tuple_(Session.started_at, Session.id) < position)
    return list(db.session.execute(query))


def end_own_session(user_id: UUID, session_id: UUID) -> None:
    """End the user's session, if it has not ended. Raises SessionNotFound."""
    query = sa.select(Session.id).where(Session.id == session_id, Session.user_id == user_id)
    if db.session.scalar(query) is None:
        raise SessionNotFound("You have no such session.")
    end_session(session_id)


def _lasts() -> tuple[sa.ColumnElement[bool], ...]:
    return Session.ended_at.is_(None), Session.expires_at > sa.func.now()
