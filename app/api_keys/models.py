"""API keys (shared schema). Revoked and expired keys stay, because the audit log and the ledger refer to them."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db import SharedModel
from tenant_schemas.tenant import SHARED_SCHEMA


class ApiKey(SharedModel):
    """A service's credential in one tenant. Only the hash of its secret is stored."""

    __tablename__ = "api_keys"
    __table_args__ = (
        sa.Index("api_keys_tenant_id_created_at_idx", "tenant_id", "created_at", "id"),
        {"schema": SHARED_SCHEMA},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=sa.func.gen_random_uuid())
    tenant_id: Mapped[UUID] = mapped_column(sa.ForeignKey("shared.tenants.id", name="api_keys_tenant_id_fkey"))
    name: Mapped[str] = mapped_column(sa.Text)
    role: Mapped[str] = mapped_column(sa.Text)
    secret_hash: Mapped[bytes] = mapped_column(sa.LargeBinary, deferred=True)
    created_by: Mapped[UUID] = mapped_column(sa.ForeignKey("shared.users.id", name="api_keys_created_by_fkey"))
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())
    expires_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    revoked_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    # The admin who answers for the key, if that is not its maker.
    kept_by: Mapped[UUID | None] = mapped_column(sa.ForeignKey("shared.users.id", name="api_keys_kept_by_fkey"))
    last_used_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
