"""The history of wallets: transactions with their filters, the balance at a moment, the trial balance. It writes and
locks nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import joinedload, undefer

from app.api.bounded_scan import scan
from app.api.pagination import Found, PageRequest
from app.auth.named_actors import named_actors
from app.db import db
from app.ledger.errors import TransactionNotFound
from app.ledger.models import BalanceAt, TrialBalance, TrialBalanceLine, WalletTransaction
from app.wallets.models import Wallet
from app.wallets.owners import Owned, owned

_SHOWN: Final = (undefer(WalletTransaction.refundable_minor),)
_IN_TIME: Final = (WalletTransaction.created_at, WalletTransaction.wallet_id, WalletTransaction.seq)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """The filters of a list of transactions. `start` is inclusive, `end` is exclusive. Amounts are sizes, without the
    sign; `text` is a part of description, reference or reason.
    """

    start: datetime | None = None
    end: datetime | None = None
    order_id: str | None = None
    type: str | None = None
    currency: str | None = None
    least_minor: int | None = None
    most_minor: int | None = None
    reference: str | None = None
    text: str | None = None
    actor_id: UUID | None = None

    def indexed(self) -> list[sa.ColumnElement[bool]]:
        """The conditions that an index of the ledger answers."""
        found: list[sa.ColumnElement[bool]] = []
        if self.start is not None:
            found.append(WalletTransaction.created_at >= self.start)
        if self.end is not None:
            found.append(WalletTransaction.created_at < self.end)
        if self.order_id is not None:
            found.append(WalletTransaction.order_id == self.order_id)
        return found

    def others(self) -> list[sa.ColumnElement[bool]]:
        """The conditions that look at each row."""
        row = WalletTransaction
        size = sa.func.abs(row.amount_minor)
        told = {"type": row.type, "currency": row.currency, "reference": row.reference, "actor_id": row.admin_id}
        found = [column == getattr(self, name) for name, column in told.items() if getattr(self, name) is not None]
        if self.least_minor is not None:
            found.append(size >= self.least_minor)
        if self.most_minor is not None:
            found.append(size <= self.most_minor)
        if self.text is not None:
            texts = (row.description, row.reference, row.reason)
            found.append(sa.or_(*(column.icontains(self.text, autoescape=True) for column in texts)))
        return found


def list_transactions(wallet_id: UUID, page: PageRequest, filters: Filters) -> Found[WalletTransaction]:
    """The wallet's transactions, newest first; a position is (seq,).

    In a wallet created_at and seq grow together, so a page is one range of one index at any depth.
    """
    query = sa.select(WalletTransaction).where(WalletTransaction.wallet_id == wallet_id)
    if filters.order_id is None:
        query = query.where(*_seq_conditions(wallet_id, filters.start, filters.end))
    else:  # The index of orders includes the time.
        query = query.where(*filters.indexed())
    return scan(page, query, (WalletTransaction.seq,), filters.others(), options=_SHOWN)


def list_tenant_transactions(page: PageRequest, filters: Filters) -> Found[WalletTransaction]:
    """The tenant's transactions, newest first; a position is (created_at, wallet_id, seq), so a page is one range of
    one index at any depth.
    """
    query = sa.select(WalletTransaction).where(*replace(filters, start=None, end=None).indexed())
    return scan(page, query, _IN_TIME, filters.others(), options=_SHOWN, start=filters.start, end=filters.end)


def with_people(found: Found[WalletTransaction]) -> Found[Owned]:
    """The transactions with their wallets' members and their actors, for staff, in three queries at most."""
    return found.showing(transactions_with_people(found.items))


def transactions_with_people(items: Sequence[WalletTransaction]) -> list[Owned]:
    actors = named_actors({item.admin_id for item in items if item.admin_id is not None})
    return [each if each.admin_id is None else replace(each, actor=actors[each.admin_id]) for each in owned(items)]


def get_transaction(transaction_id: UUID, *, user_id: UUID | None = None) -> WalletTransaction:
    """One transaction of the tenant, or of the member's wallets, with its ledger entries. Raises
    TransactionNotFound.
    """
    query = sa.select(WalletTransaction).options(*_SHOWN).where(WalletTransaction.id == transaction_id)
    if user_id is not None:
        query = query.join(Wallet, Wallet.id == WalletTransaction.wallet_id).where(Wallet.user_id == user_id)
    found = db.session.scalars(query.options(joinedload(WalletTransaction.stored_entries))).unique().one_or_none()
    if found is None:
        where = "here" if user_id is None else "in your wallets"
        raise TransactionNotFound(f"There is no such transaction {where}.")
    return found


def _seq_conditions(wallet_id: UUID, start: datetime | None, end: datetime | None) -> list[sa.ColumnElement[bool]]:
    """A period as a range of the wallet's seq, found by two index look-ups."""
    found: list[sa.ColumnElement[bool]] = []
    if start is not None:
        found.append(WalletTransaction.seq > _seq_before(wallet_id, start))
    if end is not None:
        found.append(WalletTransaction.seq <= _seq_before(wallet_id, end))
    return found


def _seq_before(wallet_id: UUID, moment: datetime) -> sa.ColumnElement[int]:
    newest = newest_until(wallet_id, sa.literal(moment), inclusive=False)
    return sa.func.coalesce(newest.with_only_columns(WalletTransaction.seq).scalar_subquery(), 0)


def newest_until(wallet_id: UUID, moment: sa.ColumnElement[datetime], *, inclusive: bool) -> sa.Select[int, int]:
    """`seq` and `balance_after_minor` of the wallet's newest transaction before a moment, or up to and including it:
    one look-up in the index (wallet_id, created_at, seq).

    It compares row values. With `wallet_id = …` a cached plan may use the index (created_at, wallet_id, seq) in a
    tenant with few wallets, and scan all newer transactions of other wallets.
    """
    own, at, seq = WalletTransaction.wallet_id, WalletTransaction.created_at, WalletTransaction.seq
    place, edge = sa.tuple_(own, at), sa.tuple_(sa.literal(wallet_id), moment)
    return (
        sa.select(seq, WalletTransaction.balance_after_minor)
        .where(own >= wallet_id, place <= edge if inclusive else place < edge)
        .order_by(own.desc(), at.desc(), seq.desc())
        .limit(1)
    )


def balance_at(wallet: Wallet, at: datetime | None) -> BalanceAt:
    """The wallet's balance at a moment, including a transaction at that moment; the current balance if `at` is None.

    The current time is PostgreSQL's, which also dates the transactions: with a slow clock of the service the last
    payment would be in the future.
    """
    clock = sa.func.statement_timestamp(type_=sa.DateTime(timezone=True))
    newest = newest_until(wallet.id, clock if at is None else sa.literal(at), inclusive=True)
    held = newest.with_only_columns(WalletTransaction.balance_after_minor).scalar_subquery()
    now, balance_minor = db.session.execute(sa.select(clock, held)).one()
    return BalanceAt(wallet.id, wallet.currency, at or now, balance_minor or 0)


def trial_balance() -> TrialBalance:
    """The bound tenant's trial balance, by currency and account. Reads the whole ledger."""
    query = sa.text(
        "SELECT currency, account, part, kind, debit_minor, credit_minor FROM trial_balance"
        " ORDER BY currency, account, part"
    )
    # PostgreSQL's sum of bigint is numeric; amounts are integers here.
    found = db.session.execute(query)
    return TrialBalance(
        [
            TrialBalanceLine(currency, account, part, kind, int(debit), int(credit))
            for currency, account, part, kind, debit, credit in found
        ]
    )
