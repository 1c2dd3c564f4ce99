"""The wallet's table. Only SQL functions write it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, column_property, mapped_column

from app.db import TenantModel
from app.users.models import User

# The columns of `holds` that a wallet needs. The feature `holds` is above wallets, so its model can't be imported.
_holds = sa.table(
    "holds",
    sa.column("wallet_id", sa.Uuid),
    sa.column("status", sa.Text),
    sa.column("expires_at", sa.DateTime(timezone=True)),
    sa.column("amount_minor", sa.BigInteger),
    sa.column("captured_minor", sa.BigInteger),
).c


class Wallet(TenantModel):
    """One member's balance in one currency. Amounts are in minor units; the balance is signed."""

    __tablename__ = "wallets"
    __table_args__ = (
        sa.UniqueConstraint("user_id", "currency", name="wallets_user_id_currency_key"),
        sa.UniqueConstraint("id", "currency", name="wallets_id_currency_key"),
        sa.Index("wallets_opened_at_id_idx", "opened_at", "id"),
        sa.Index("wallets_uses_credit_idx", "id", postgresql_where=sa.text("uses_credit")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=sa.func.gen_random_uuid())
    user_id: Mapped[UUID] = mapped_column(sa.ForeignKey(User.__table__.c.id, name="wallets_user_id_fkey"))
    currency: Mapped[str] = mapped_column(sa.Text)
    status: Mapped[str] = mapped_column(sa.Text, server_default="active")
    balance_minor: Mapped[int] = mapped_column(sa.BigInteger, server_default="0")
    credit_limit_minor: Mapped[int] = mapped_column(sa.BigInteger, server_default="0")
    held_minor: Mapped[int] = mapped_column(sa.BigInteger, server_default="0")
    version: Mapped[int] = mapped_column(server_default="1")
    last_seq: Mapped[int] = mapped_column(sa.BigInteger, server_default="0")
    last_hash: Mapped[bytes]
    last_posted_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    opened_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())
    # Whether the balance is below zero. An index on the balance itself would have to be updated by every posting.
    uses_credit: Mapped[bool] = mapped_column(server_default=sa.false())
    over_minor: Mapped[int] = column_property(
        sa.select(sa.func.coalesce(sa.func.sum(_holds.amount_minor - _holds.captured_minor), 0).cast(sa.BigInteger))
        .where(_holds.wallet_id == id, _holds.status == "active", _holds.expires_at <= sa.func.statement_timestamp())
        .scalar_subquery(),
        deferred=True,
    )

    @property
    def deposit_balance_minor(self) -> int:
        """The balance above zero."""
        return max(self.balance_minor, 0)

    @property
    def credit_used_minor(self) -> int:
        """The balance below zero, as a positive amount."""
        return max(-self.balance_minor, 0)

    @property
    def held_now_minor(self) -> int:
        """The amount that active holds block now. `held_minor` includes expired holds until the next movement, or
        `flask wallets expire-holds`, releases them.
        """
        return self.held_minor - (self.over_minor if self.held_minor else 0)

    @property
    def available_minor(self) -> int:
        """The amount that can be paid now: balance + credit limit - held, as in the rule
        wallets_available_not_negative.
        """
        return self.balance_minor + self.credit_limit_minor - self.held_now_minor


@dataclass(frozen=True, slots=True)
class MemberWallet:
    """A wallet with its tenant's slug, and its member's address and name as the tenant knows them. A former member has
    a `removed_at`; None for all three is a user whom the tenant has forgotten.
    """

    tenant_slug: str
    wallet: Wallet
    email: str | None
    name: str | None
    removed_at: datetime | None

    def __getattr__(self, attribute: str) -> Any:
        """All attributes of the wallet."""
        return getattr(self.wallet, attribute)
