"""The ledger's tables. Only the posting function writes them, and no row changes afterwards."""

from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db import TenantModel


class WalletTransaction(TenantModel):
    """One movement of a wallet. `amount_minor` is signed by its effect on the balance."""

    __tablename__ = "wallet_transactions"
    __table_args__ = (
        sa.UniqueConstraint("wallet_id", "seq", name="wallet_transactions_wallet_id_seq_key"),
        sa.UniqueConstraint("wallet_id", "idempotency_key", name="wallet_transactions_wallet_id_idempotency_key_key"),
        sa.ForeignKeyConstraint(
            ["wallet_id", "currency"], ["wallets.id", "wallets.currency"], name="wallet_transactions_wallet_fkey"
        ),
        sa.Index("wallet_transactions_wallet_id_created_at_idx", "wallet_id", "created_at", "seq"),
        sa.Index("wallet_transactions_created_at_idx", "created_at", "wallet_id", "seq"),
        sa.Index("wallet_transactions_hold_id_idx", "hold_id", postgresql_where=sa.text("hold_id IS NOT NULL")),
        sa.Index("wallet_transactions_opening_idx", "wallet_id", postgresql_where=sa.text("type = 'opening'")),
        sa.Index(
            "wallet_transactions_order_id_idx",
            *("order_id", "created_at"),
            postgresql_where=sa.text("order_id IS NOT NULL"),
        ),
        sa.Index("wallet_transactions_refund_of_idx", "refund_of", postgresql_where=sa.text("refund_of IS NOT NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    wallet_id: Mapped[UUID]
    currency: Mapped[str] = mapped_column(sa.Text)
    seq: Mapped[int] = mapped_column(sa.BigInteger)
    type: Mapped[str] = mapped_column(sa.Text)
    amount_minor: Mapped[int] = mapped_column(sa.BigInteger)
    balance_after_minor: Mapped[int] = mapped_column(sa.BigInteger)
    idempotency_key: Mapped[str] = mapped_column(sa.Text)
    request_fingerprint: Mapped[bytes]
    admin_id: Mapped[UUID | None]
    order_id: Mapped[str | None] = mapped_column(sa.Text)
    refund_of: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey("wallet_transactions.id", name="wallet_transactions_refund_of_fkey")
    )
    description: Mapped[str | None] = mapped_column(sa.Text)
    reference: Mapped[str | None] = mapped_column(sa.Text)
    reason: Mapped[str | None] = mapped_column(sa.Text)
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    hash: Mapped[bytes]
    hold_id: Mapped[UUID | None] = mapped_column(sa.ForeignKey("holds.id", name="wallet_transactions_hold_id_fkey"))

    entries: Mapped[list["LedgerEntry"]] = relationship(order_by="LedgerEntry.entry_no", lazy="raise", viewonly=True)


class LedgerAccount(TenantModel):
    """One account of the tenant's chart of accounts."""

    __tablename__ = "ledger_accounts"

    code: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    name: Mapped[str] = mapped_column(sa.Text)
    kind: Mapped[str] = mapped_column(sa.Text)
    normal_side: Mapped[str] = mapped_column(sa.Text)


class LedgerEntry(TenantModel):
    """A debit and a credit of the same amount: balanced by construction."""

    __tablename__ = "ledger_entries"

    transaction_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey("wallet_transactions.id", name="ledger_entries_transaction_id_fkey"), primary_key=True
    )
    entry_no: Mapped[int] = mapped_column(sa.SmallInteger, primary_key=True)
    debit_account: Mapped[str] = mapped_column(sa.Text)
    credit_account: Mapped[str] = mapped_column(sa.Text)
    amount_minor: Mapped[int] = mapped_column(sa.BigInteger)

    transaction: Mapped[WalletTransaction] = relationship(lazy="raise", viewonly=True)

    @property
    def currency(self) -> str:
        return self.transaction.currency


class OrderPayment(TenantModel):
    """How an order was paid: by one payment, or by the captures of one hold."""

    __tablename__ = "order_payments"

    order_id: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    transaction_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey("wallet_transactions.id", name="order_payments_transaction_id_fkey")
    )
    hold_id: Mapped[UUID | None] = mapped_column(sa.ForeignKey("holds.id", name="order_payments_hold_id_fkey"))
    claimed_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.clock_timestamp())


@dataclass(frozen=True, slots=True)
class BalanceAt:
    """The balance of a wallet at a moment."""

    wallet_id: UUID
    currency: str
    at: datetime
    balance_minor: int

    @property
    def deposit_balance_minor(self) -> int:
        return max(self.balance_minor, 0)

    @property
    def credit_used_minor(self) -> int:
        return max(-self.balance_minor, 0)


@dataclass(frozen=True, slots=True)
class TrialBalanceLine:
    """One account in one currency. The control account has two lines, told apart by `part`."""

    currency: str
    account: str
    part: str | None
    kind: str
    debit_minor: int
    credit_minor: int


@dataclass(frozen=True, slots=True)
class TrialBalanceTotal:
    """The sums of both sides in one currency."""

    currency: str
    debit_minor: int
    credit_minor: int


@dataclass(frozen=True, slots=True)
class TrialBalance:
    """The lines, by currency and account."""

    lines: list[TrialBalanceLine]

    @property
    def totals(self) -> list[TrialBalanceTotal]:
        return [
            TrialBalanceTotal(currency, sum(line.debit_minor for line in own), sum(line.credit_minor for line in own))
            for currency, group in groupby(self.lines, attrgetter("currency"))
            for own in [list(group)]
        ]


@dataclass(frozen=True, slots=True)
class PostedTransaction:
    """A wallet transaction as the posting function returned it: the public columns, without a session, and for a refund
    the amount of its payment that can still be refunded.
    """

    id: UUID
    wallet_id: UUID
    currency: str
    seq: int
    type: str
    amount_minor: int
    balance_after_minor: int
    admin_id: UUID | None
    order_id: str | None
    refund_of: UUID | None
    hold_id: UUID | None
    description: str | None
    reference: str | None
    reason: str | None
    created_at: datetime
    refundable_minor: int | None = None
