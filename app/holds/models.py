"""The table of holds. Only SQL functions write it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db import TenantModel


class Hold(TenantModel):
    """An amount of a wallet reserved until it is captured, voided or expired."""

    __tablename__ = "holds"
    __table_args__ = (
        sa.UniqueConstraint("wallet_id", "idempotency_key", name="holds_wallet_id_idempotency_key_key"),
        sa.ForeignKeyConstraint(
            ["wallet_id", "currency"], ["wallets.id", "wallets.currency"], name="holds_wallet_fkey"
        ),
        sa.Index("holds_active_expires_at_idx", "expires_at", postgresql_where=sa.text("status = 'active'")),
        sa.Index(
            "holds_active_wallet_id_idx", "wallet_id", "expires_at", postgresql_where=sa.text("status = 'active'")
        ),
        sa.Index("holds_wallet_id_created_at_idx", "wallet_id", "created_at", "id"),
        sa.Index("holds_created_at_id_idx", "created_at", "id"),
        sa.Index("holds_status_created_at_id_idx", "status", "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=sa.func.gen_random_uuid())
    wallet_id: Mapped[UUID]
    currency: Mapped[str] = mapped_column(sa.Text)
    status: Mapped[str] = mapped_column(sa.Text, server_default="active")
    amount_minor: Mapped[int] = mapped_column(sa.BigInteger)
    captured_minor: Mapped[int] = mapped_column(sa.BigInteger, server_default="0")
    expires_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    order_id: Mapped[str | None] = mapped_column(sa.Text)
    description: Mapped[str | None] = mapped_column(sa.Text)
    idempotency_key: Mapped[str] = mapped_column(sa.Text)
    request_fingerprint: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    ended_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))

    @property
    def status_now(self) -> str:
        """The status at this moment: an active hold after `expires_at` has expired, whether or not its row says so."""
        is_over = self.status == "active" and self.expires_at <= datetime.now(UTC)
        return "expired" if is_over else self.status

    @property
    def capturable_minor(self) -> int:
        return self.amount_minor - self.captured_minor if self.status_now == "active" else 0


@dataclass(frozen=True, slots=True)
class AuthorisedHold:
    """A hold as its request created it: the answer to the request and to each of its retries."""

    id: UUID
    wallet_id: UUID
    currency: str
    amount_minor: int
    order_id: str | None
    description: str | None
    created_at: datetime
    expires_at: datetime
    status_now: str = "active"
    captured_minor: int = 0

    @property
    def capturable_minor(self) -> int:
        return self.amount_minor
