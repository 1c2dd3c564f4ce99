"""The calculated balances of the old system, and the amounts posted for them."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db import TenantModel


class Reconciliation(TenantModel):
    """A member's calculated balance in a currency, and the posted opening balance. Only SQL functions write it."""

    __tablename__ = "reconciliations"
    __table_args__ = (
        sa.Index("reconciliations_off_idx", "currency", "user_id", postgresql_where=sa.text("difference_minor <> 0")),
    )

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    currency: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    calculated_minor: Mapped[int] = mapped_column(sa.BigInteger)
    posted_minor: Mapped[int] = mapped_column(sa.BigInteger)
    difference_minor: Mapped[int] = mapped_column(sa.BigInteger, sa.Computed("calculated_minor - posted_minor"))
    source_rows: Mapped[int]
    source_hash: Mapped[str] = mapped_column(sa.Text)
    refused_by: Mapped[str | None] = mapped_column(sa.Text)
    compared_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
