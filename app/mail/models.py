"""The outbox of account mails, with their single-use tokens (shared schema)."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import SharedModel
from tenant_schemas.tenant import SHARED_SCHEMA


class MailKind(StrEnum):
    INVITATION = "invitation"  # with a token
    PASSWORD_RESET = "password_reset"  # noqa: S105  with a token
    EMAIL_CHANGE = "email_change"  # with a token
    NO_PASSWORD = "no_password"  # noqa: S105
    PASSWORD_CHANGED = "password_changed"  # noqa: S105
    EMAIL_CHANGE_ASKED = "email_change_asked"
    EMAIL_CHANGED = "email_changed"
    SECOND_FACTOR_ON = "second_factor_on"
    SECOND_FACTOR_OFF = "second_factor_off"
    WEBHOOK_DISABLED = "webhook_disabled"


class AccountMail(SharedModel):
    """A mail to be sent, or sent. Its token, if its kind has one, is derived from the id and is not stored."""

    __tablename__ = "account_mails"
    __table_args__ = (
        sa.UniqueConstraint("token_hash", name="account_mails_token_hash_key"),
        sa.Index(
            "account_mails_user_id_kind_key",
            "user_id",
            "kind",
            unique=True,
            postgresql_where=sa.text("token_hash IS NOT NULL AND user_id IS NOT NULL"),
        ),
        sa.Index("account_mails_invitation_id_key", "invitation_id", unique=True),
        sa.Index(
            "account_mails_next_attempt_at_idx",
            "next_attempt_at",
            postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
        ),
        sa.Index("account_mails_expires_at_idx", "expires_at"),
        {"schema": SHARED_SCHEMA},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(sa.Text)
    recipient: Mapped[str] = mapped_column(sa.Text)
    user_id: Mapped[UUID | None] = mapped_column(sa.ForeignKey("shared.users.id", name="account_mails_user_id_fkey"))
    invitation_id: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey("shared.invitations.id", name="account_mails_invitation_id_fkey", ondelete="CASCADE")
    )
    details: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=sa.text("'{}'"))
    token_hash: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())
    expires_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    used_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    attempts: Mapped[int] = mapped_column(server_default=sa.text("0"))
    next_attempt_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    sent_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    token_made_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
