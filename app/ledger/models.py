"""The ledger's tables. Only the posting function writes them, and no row changes afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db import TenantModel


class WalletTransaction(TenantModel):
    """One movement of a wallet. `amount_minor` is signed by its effect on the balance."""

    __tablename__ = "wallet_transactions"
    __table_args__ = (
        sa.UniqueConstraint("wallet_id", "seq", name="wallet_transactions_wallet_id_seq_key"),
        sa.UniqueConstraint(
            *("wallet_id", "idempotency_key", "admin_id"),
            name="wallet_transactions_wallet_id_idempotency_key_admin_id_key",
            postgresql_nulls_not_distinct=True,
        ),
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

    # The first ledger entry of this movement, of the movement's amount. None in movements from before revision 0009:
    # all their entries are in ledger_entries.
    debit_account: Mapped[str | None] = mapped_column(sa.Text)
    credit_account: Mapped[str | None] = mapped_column(sa.Text)

    stored_entries: Mapped[list["LedgerEntry"]] = relationship(
        order_by="LedgerEntry.entry_no", lazy="raise", viewonly=True
    )

    @property
    def entries(self) -> list["Entry"]:
        """The ledger entries, in their order. Needs `stored_entries` loaded."""
        own = []
        if self.debit_account and self.credit_account:
            own = [Entry(1, self.debit_account, self.credit_account, abs(self.amount_minor), self.currency)]
        return own + [
            Entry(each.entry_no, each.debit_account, each.credit_account, each.amount_minor, self.currency)
            for each in self.stored_entries
        ]


@dataclass(frozen=True, slots=True)
class Entry:
    """A debit and a credit of the same amount: balanced by construction."""

    entry_no: int
    debit_account: str
    credit_account: str
    amount_minor: int
    currency: str


class LedgerAccount(TenantModel):
    """One account of the tenant's chart of accounts."""

    __tablename__ = "ledger_accounts"

    code: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    name: Mapped[str] = mapped_column(sa.Text)
    kind: Mapped[str] = mapped_column(sa.Text)
    normal_side: Mapped[str] = mapped_column(sa.Text)


class LedgerEntry(TenantModel):
    """A ledger entry that is not in its movement's row."""

    __tablename__ = "ledger_entries"

    transaction_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey("wallet_transactions.id", name="ledger_entries_transaction_id_fkey"), primary_key=True
    )
    entry_no: Mapped[int] = mapped_column(sa.SmallInteger, primary_key=True)
    debit_account: Mapped[str] = mapped_column(sa.Text)
    credit_account: Mapped[str] = mapped_column(sa.Text)
    amount_minor: Mapped[int] = mapped_column(sa.BigInteger)


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

    @classmethod
    def of(cls, movement: "Movement", columns: Sequence[Any]) -> "PostedTransaction":
        """The posted movement. `columns` are what only the database knew: id, wallet_id, currency, seq, amount_minor,
        balance_after_minor, order_id, created_at, refundable_minor and admin_id. `admin_id` of a repeated request is
        that of the first: it may be another API key.
        """
        id_, wallet_id, currency, seq, amount_minor, balance_after_minor, order_id, created_at, *more = columns
        refundable, admin_id = more
        return cls(
            id=id_,
            wallet_id=wallet_id,
            currency=currency,
            seq=seq,
            type=movement.type,
            amount_minor=amount_minor,
            balance_after_minor=balance_after_minor,
            admin_id=admin_id,
            order_id=order_id,
            refund_of=movement.refund_of,
            hold_id=None,
            description=movement.description,
            reference=movement.reference,
            reason=movement.reason,
            created_at=created_at,
            refundable_minor=refundable,
        )

    @classmethod
    def of_payment(cls, movement: "Movement", currency: str, columns: Sequence[Any]) -> "PostedTransaction":
        """A member's payment. `columns` are id, wallet_id, seq, balance_after_minor and created_at."""
        id_, wallet_id, seq, balance_after_minor, created_at = columns
        amount_minor = -(movement.amount_minor or 0)
        known = (id_, wallet_id, currency, seq, amount_minor, balance_after_minor, movement.order_id, created_at)
        return cls.of(movement, (*known, None, None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """A movement to post. `amount_minor` is above zero; for an adjustment or opening it is signed, and for a refund
    None means the whole remaining amount.
    """

    type: str
    amount_minor: int | None
    idempotency_key: str
    admin_id: UUID | None = None
    order_id: str | None = None
    refund_of: UUID | None = None
    description: str | None = None
    reference: str | None = None
    reason: str | None = None

    def parameters(self) -> dict[str, Any]:
        """The movement as the named parameters of the posting statements."""
        return {name: getattr(self, name) for name in _MOVEMENT_FIELDS}


_MOVEMENT_FIELDS: Final = tuple(field.name for field in fields(Movement))
