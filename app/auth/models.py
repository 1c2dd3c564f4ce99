"""Sessions and their refresh tokens (shared schema)."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db import SharedModel
from tenant_schemas.tenant import SHARED_SCHEMA


class Session(SharedModel):
    """One log-in of one user, until it ends. Its access tokens are valid for its tenant, or for all tenants of the
    user.
    """

    __tablename__ = "sessions"
    __table_args__ = (
        sa.Index("sessions_user_id_idx", "user_id", postgresql_where=sa.text("ended_at IS NULL")),
        sa.Index("sessions_expires_at_idx", "expires_at"),
        {"schema": SHARED_SCHEMA},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=sa.func.gen_random_uuid())
    user_id: Mapped[UUID] = mapped_column(sa.ForeignKey("shared.users.id", name="sessions_user_id_fkey"))
    tenant_id: Mapped[UUID | None] = mapped_column(sa.ForeignKey("shared.tenants.id", name="sessions_tenant_id_fkey"))
    started_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())
    expires_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    ended_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    end_reason: Mapped[str | None] = mapped_column(sa.Text)
    second_factor_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    user_agent: Mapped[str | None] = mapped_column(sa.Text)


class RefreshToken(SharedModel):
    """The hash of a current or former refresh token of a session. The token itself is not stored."""

    __tablename__ = "refresh_tokens"
    __table_args__ = (sa.Index("refresh_tokens_session_id_idx", "session_id"), {"schema": SHARED_SCHEMA})

    token_hash: Mapped[bytes] = mapped_column(sa.LargeBinary, primary_key=True)
    session_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey("shared.sessions.id", name="refresh_tokens_session_id_fkey", ondelete="CASCADE")
    )
    issued_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())
    used_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    successor_salt: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
