"""Invitations (shared schema). Those that are over stay for a while, as a record, unless the tenant forgets whom it
invited.
"""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db import SharedModel
from tenant_schemas.tenant import SHARED_SCHEMA

_IS_OPEN = "accepted_at IS NULL AND revoked_at IS NULL"


class Invitation(SharedModel):
    """An invitation of an address to a tenant. Its token is in the outbox of mails."""

    __tablename__ = "invitations"
    __table_args__ = (
        sa.Index("invitations_open_key", "tenant_id", "email", unique=True, postgresql_where=sa.text(_IS_OPEN)),
        sa.Index("invitations_tenant_id_created_at_idx", "tenant_id", "created_at", "id"),
        sa.Index("invitations_invited_by_idx", "invited_by", postgresql_where=sa.text(_IS_OPEN)),
        sa.Index("invitations_email_idx", "email"),
        sa.Index("invitations_accepted_by_idx", "accepted_by", postgresql_where=sa.text("accepted_by IS NOT NULL")),
        sa.Index("invitations_over_at_idx", sa.text("coalesce(accepted_at, revoked_at, expires_at)")),
        {"schema": SHARED_SCHEMA},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=sa.func.gen_random_uuid())
    tenant_id: Mapped[UUID] = mapped_column(sa.ForeignKey("shared.tenants.id", name="invitations_tenant_id_fkey"))
    email: Mapped[str] = mapped_column(sa.Text)
    name: Mapped[str | None] = mapped_column(sa.Text)
    role: Mapped[str] = mapped_column(sa.Text)
    invited_by: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey("shared.users.id", name="invitations_invited_by_fkey")
    )
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())
    expires_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    accepted_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    accepted_by: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey("shared.users.id", name="invitations_accepted_by_fkey")
    )
    revoked_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))


def is_open() -> sa.ColumnElement[bool]:
    """Whether an invitation was neither accepted nor revoked. Its token may have expired."""
    return Invitation.accepted_at.is_(None) & Invitation.revoked_at.is_(None)


def revoke_invitations_of(tenant_id: UUID, user_id: UUID) -> sa.Update:
    """Revokes the tenant's open invitations by this user, who is no longer an admin there."""
    theirs = (Invitation.tenant_id == tenant_id) & (Invitation.invited_by == user_id) & is_open()
    return sa.update(Invitation).where(theirs).values(revoked_at=sa.func.now())
