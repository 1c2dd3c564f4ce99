"""The verbs of money. Each is one call of the tenant's posting function: one statement, its own db transaction, one
row lock. It is committed when it returns, and with any error nothing is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import joinedload

from app.db import db
from app.ledger.errors import TransactionNotFound
from app.ledger.models import LedgerEntry, PostedTransaction, WalletTransaction
from app.refusals import named_refusals
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

_COLUMNS: Final = ", ".join(f"(posted).{field.name}" for field in fields(PostedTransaction))
_ARGUMENTS: Final = "%s, %s, %s, %s, %s, %s, %s, %s, %s"
_POST: Final = f"SELECT {_COLUMNS}, replayed FROM wallet_post_v1(%s, {_ARGUMENTS})"  # noqa: S608
_POST_OWN: Final = (
    f"SELECT {_COLUMNS}, replayed FROM wallet_post_v1("  # noqa: S608
    f"(SELECT w.id FROM wallets w WHERE w.user_id = %s AND w.currency = %s), {_ARGUMENTS})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """What is to be posted. `amount_minor` is above zero, but signed for an adjustment or opening; for a refund None
    means all that is left.
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

    def arguments(self) -> tuple[Any, ...]:
        return (
            self.type,
            self.amount_minor,
            self.idempotency_key,
            self.admin_id,
            self.order_id,
            self.refund_of,
            self.description,
            self.reference,
            self.reason,
        )


def post(wallet_id: UUID, movement: Movement) -> tuple[PostedTransaction, bool]:
    """Post to a wallet of the bound tenant; returns the transaction, and whether an earlier request had posted it.

    Locks the wallet's row. Raises WalletNotFound, WalletFrozen, WalletClosed, InsufficientFunds, RefundExceedsPayment,
    PaymentNotFound, IdempotencyKeyReused, AmountOutOfRange.
    """
    return _post(_POST, (wallet_id, *movement.arguments()))


def post_own(user_id: UUID, currency: str, movement: Movement) -> tuple[PostedTransaction, bool]:
    """Like `post`, to the member's own wallet, found in the same round trip."""
    return _post(_POST_OWN, (user_id, currency, *movement.arguments()))


def _post(statement: str, parameters: tuple[Any, ...]) -> tuple[PostedTransaction, bool]:
    engine = connections().engine(current_tenant())
    with named_refusals():
        # If the connection breaks on the way, the same key makes the second try safe.
        rows = engine.one_statement(statement, parameters, retry=True)
    *columns, replayed = rows[0]
    return PostedTransaction(*columns), replayed


def list_transactions(
    wallet_id: UUID,
    *,
    after: list[Any] | None,
    limit: int,
    type_: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> Sequence[WalletTransaction]:
    """The wallet's transactions, newest first; `after` is (created_at, seq). `start` is inclusive, `end` is not.

    In a wallet created_at and seq grow together, so this is one range of one index at any depth.
    """
    order = (WalletTransaction.created_at, WalletTransaction.seq)
    query = (
        sa.select(WalletTransaction)
        .where(WalletTransaction.wallet_id == wallet_id)
        .order_by(*(column.desc() for column in order))
        .limit(limit)
    )
    if after is not None:
        position = sa.tuple_(sa.literal(datetime.fromisoformat(after[0])), sa.literal(after[1]))
        query = query.where(sa.tuple_(*order) < position)
    if type_ is not None:
        query = query.where(WalletTransaction.type == type_)
    if start is not None:
        query = query.where(WalletTransaction.created_at >= start)
    if end is not None:
        query = query.where(WalletTransaction.created_at < end)
    return db.session.scalars(query).all()


def get_transaction(wallet_id: UUID, transaction_id: UUID) -> WalletTransaction:
    """One transaction of the wallet with its ledger entries. Raises TransactionNotFound."""
    query = (
        sa.select(WalletTransaction)
        .where(WalletTransaction.id == transaction_id, WalletTransaction.wallet_id == wallet_id)
        .options(joinedload(WalletTransaction.entries).joinedload(LedgerEntry.transaction))
    )
    found = db.session.scalars(query).unique().one_or_none()
    if found is None:
        raise TransactionNotFound("There is no such transaction in this wallet.")
    return found
