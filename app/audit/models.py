"""The audit log: append-only, and one chain of hashes for each tenant."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import TenantModel


class AuditRecord(TenantModel):
    """One entry. `before` and `after` hold the changed state, `subject` names the object of the change beside the
    wallet, and `refusal` holds the code of a refusal.
    """

    __tablename__ = "audit_log"
    __table_args__ = (
        sa.UniqueConstraint("seq", name="audit_log_seq_key"),
        sa.Index("audit_log_wallet_id_at_idx", "wallet_id", "at"),
        sa.Index("audit_log_at_idx", "at", postgresql_where=sa.text("wallet_id IS NULL")),
        sa.Index("audit_log_actor_id_seq_idx", "actor_id", "seq"),
        sa.Index("audit_log_action_seq_idx", "action", "seq"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=sa.func.gen_random_uuid())
    seq: Mapped[int] = mapped_column(sa.BigInteger)
    at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.clock_timestamp())
    actor_kind: Mapped[str] = mapped_column(sa.Text)
    actor_id: Mapped[UUID | None]
    action: Mapped[str] = mapped_column(sa.Text)
    wallet_id: Mapped[UUID | None]
    subject: Mapped[str | None] = mapped_column(sa.Text)
    before: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    after: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    request_id: Mapped[str | None] = mapped_column(sa.Text)
    address: Mapped[str | None] = mapped_column(sa.Text)
    refusal: Mapped[str | None] = mapped_column(sa.Text)
    hash: Mapped[bytes] = mapped_column(sa.LargeBinary)


@dataclass(frozen=True, slots=True)
class ReadEntry:
    """An entry with the currency of its wallet."""

    record: AuditRecord
    currency: str | None

    def __getattr__(self, attribute: str) -> Any:
        """All attributes of the record."""
        return getattr(self.record, attribute)


class AuditChain(TenantModel):
    """The head of the tenant's chain of hashes: one row."""

    __tablename__ = "audit_chain"

    id: Mapped[bool] = mapped_column(primary_key=True, server_default=sa.true())
    last_seq: Mapped[int] = mapped_column(sa.BigInteger)
    last_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    last_hash: Mapped[bytes] = mapped_column(sa.LargeBinary)
