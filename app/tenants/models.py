"""Requests for new tenants over HTTP (shared schema). The engine has the table of tenants."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import SharedModel
from tenant_schemas.tenant import SHARED_SCHEMA


class Provisioning(SharedModel):
    """A requested tenant and its state: `pending`, `done`, or `failed` with an `error`."""

    __tablename__ = "provisionings"
    __table_args__ = (
        sa.Index("provisionings_pending_slug_key", "slug", unique=True, postgresql_where=sa.text("status = 'pending'")),
        sa.Index("provisionings_requested_at_idx", "requested_at"),
        {"schema": SHARED_SCHEMA},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=sa.func.gen_random_uuid())
    slug: Mapped[str] = mapped_column(sa.Text)
    name: Mapped[str] = mapped_column(sa.Text)
    settings: Mapped[dict[str, Any]] = mapped_column(JSONB)
    status: Mapped[str] = mapped_column(sa.Text, server_default="pending")
    error: Mapped[str | None] = mapped_column(sa.Text)
    requested_by: Mapped[UUID] = mapped_column(sa.ForeignKey("shared.users.id", name="provisionings_requested_by_fkey"))
    requested_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())
    request_id: Mapped[str | None] = mapped_column(sa.Text)
    address: Mapped[str | None] = mapped_column(sa.Text)
    finished_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
