"""The verbs of money. Each is one call of the tenant's posting function: one statement, its own db transaction, one row
lock. It is committed when it returns; after an error nothing is posted.
"""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import joinedload

from app.audit.service import entry_json, mark_rehearsal, mark_written
from app.auth.actors import Actor
from app.db import db
from app.ledger.errors import TransactionNotFound
from app.ledger.group_posting import Payment, group_posting
from app.ledger.models import (
    BalanceAt,
    Movement,
    PostedTransaction,
    TrialBalance,
    TrialBalanceLine,
    WalletTransaction,
)
from app.sql_refusals import named_refusals
from app.users.standing import StandingProof
from app.wallets.models import Wallet
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

# The columns of a wallet transaction that an SQL function returns whole, as `posted`.
POSTED_COLUMNS: Final = ", ".join(
    f"(posted).{field.name}" for field in fields(PostedTransaction) if field.name != "refundable_minor"
)
# The caller knows the other columns.
_ANSWER: Final = """id, wallet_id, currency, seq, amount_minor, balance_after_minor, order_id, created_at,
        refundable_minor, admin_id, replayed"""
# The wallet is the one with this id, or else the user's in this currency.
_FROM_POSTING: Final = """FROM wallet_post_v4(p_wallet_id => %(wallet_id)s, p_user_id => %(user_id)s,
        p_currency => %(currency)s, p_type => %(type)s, p_amount_minor => %(amount_minor)s,
        p_idempotency_key => %(idempotency_key)s, p_admin_id => %(admin_id)s, p_order_id => %(order_id)s,
        p_refund_of => %(refund_of)s, p_description => %(description)s, p_reference => %(reference)s,
        p_reason => %(reason)s)"""
_POST: Final = f"SELECT {_ANSWER} {_FROM_POSTING}"
# The audit entry commits in the same statement.
_POST_AUDITED: Final = f"""
    SELECT {_ANSWER}, audit_posted_v2(%(audit_entry)s::jsonb, type, wallet_id, id, amount_minor, balance_after_minor,
        replayed) {_FROM_POSTING}"""
# The same statement proves the member's standing.
_PAY: Final = """
    SELECT id, wallet_id, seq, balance_after_minor, created_at, replayed
    FROM wallet_pay_v2(%(user_id)s, %(session_id)s, %(tenant_version)s, %(currency)s, %(amount_minor)s,
        %(idempotency_key)s, %(order_id)s, %(description)s)"""


def post(wallet_id: UUID, movement: Movement, actor: Actor | None = None) -> tuple[PostedTransaction, bool]:
    """Post to a wallet of the bound tenant. Returns the transaction, and whether an earlier request posted it. With an
    actor, the same statement writes an entry into the audit log.

    Locks the wallet's row; with an actor, then the head of the audit log's chain. Raises WalletNotFound, WalletFrozen,
    WalletClosed, InsufficientFunds, RefundExceedsPayment, PaymentNotFound, IdempotencyKeyReused, AmountOutOfRange.
    """
    parameters = _parameters(movement, wallet_id=wallet_id)
    if actor is None:
        return _posted(_row(_POST, parameters), movement)
    row = _row(_POST_AUDITED, {**parameters, "audit_entry": entry_json(actor)})
    mark_written()
    return _posted(row[:-1], movement)


def post_own(user_id: UUID, currency: str, movement: Movement) -> tuple[PostedTransaction, bool]:
    """`post` to the member's own wallet, which the same statement finds."""
    return _posted(_row(_POST, _parameters(movement, user_id=user_id, currency=currency)), movement)


def pay_own(proof: StandingProof, currency: str, movement: Movement) -> tuple[PostedTransaction, bool]:
    """`post_own` for a payment, by a statement that also proves the member's standing. Payments of one tenant that
    arrive together are posted together. Raises StandingUnproven, and then nothing is posted; else what `post` raises.
    """
    payment = Payment(proof, currency, movement)
    return group_posting().pay(payment, lambda: _pay_alone(payment))


def _pay_alone(payment: Payment) -> tuple[PostedTransaction, bool]:
    proof, movement = payment.proof, payment.movement
    parameters = {
        "user_id": proof.user_id,
        "session_id": proof.session_id,
        "tenant_version": proof.tenant_version,
        "currency": payment.currency,
        **movement.parameters(),
    }
    *columns, replayed = _row(_PAY, parameters)
    return PostedTransaction.of_payment(movement, payment.currency, columns), replayed


def rehearse(wallet_id: UUID, movement: Movement) -> tuple[PostedTransaction, bool]:
    """The result or refusal of `post` now: the same function, rolled back. Locks the wallet's row until then."""
    return _rehearse(_parameters(movement, wallet_id=wallet_id), movement)


def rehearse_own(user_id: UUID, currency: str, movement: Movement) -> tuple[PostedTransaction, bool]:
    """`rehearse` for the member's own wallet."""
    return _rehearse(_parameters(movement, user_id=user_id, currency=currency), movement)


def _parameters(
    movement: Movement, *, wallet_id: UUID | None = None, user_id: UUID | None = None, currency: str | None = None
) -> dict[str, Any]:
    return {"wallet_id": wallet_id, "user_id": user_id, "currency": currency, **movement.parameters()}


def _row(statement: LiteralString, parameters: dict[str, Any]) -> Sequence[Any]:
    engine = connections().engine(current_tenant())
    with named_refusals():
        # After a broken connection, the same idempotency key makes the second try safe.
        return engine.one_statement(statement, parameters, retry=True)[0]


def _rehearse(parameters: dict[str, Any], movement: Movement) -> tuple[PostedTransaction, bool]:
    mark_rehearsal()
    with connections().engine(current_tenant()).connect() as connection, connection.begin() as db_transaction:
        with named_refusals():
            row = connection.exec_driver_sql(_POST, parameters).one()
        db_transaction.rollback()
    return _posted(row, movement)


def _posted(row: Sequence[Any], movement: Movement) -> tuple[PostedTransaction, bool]:
    *columns, replayed = row
    return PostedTransaction.of(movement, columns), replayed


def posted_transaction(columns: Sequence[Any]) -> PostedTransaction:
    """The transaction in a row that was selected with POSTED_COLUMNS."""
    return PostedTransaction(*columns)


def list_transactions(
    wallet_id: UUID,
    *,
    after: list[Any] | None,
    limit: int,
    type_: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    order_id: str | None = None,
) -> Sequence[WalletTransaction]:
    """The wallet's transactions, newest first; `after` is (seq,). `start` is inclusive, `end` is exclusive.

    In a wallet created_at and seq grow together, so a page is one range of one index at any depth.
    """
    seq = WalletTransaction.seq
    query = sa.select(WalletTransaction).where(WalletTransaction.wallet_id == wallet_id)
    if order_id is None:
        query = query.where(*conditions(type_=type_), *_seq_conditions(wallet_id, start, end))
    else:  # The index of orders includes the time.
        query = query.where(*conditions(type_=type_, start=start, end=end, order_id=order_id))
    if after is not None:
        query = query.where(seq < after[-1])
    return db.session.scalars(query.order_by(seq.desc()).limit(limit)).all()


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


def conditions(
    *,
    type_: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    order_id: str | None = None,
) -> list[sa.ColumnElement[bool]]:
    """The WHERE conditions of the given filters. `start` is inclusive, `end` is exclusive."""
    found: list[sa.ColumnElement[bool]] = []
    if type_ is not None:
        found.append(WalletTransaction.type == type_)
    if start is not None:
        found.append(WalletTransaction.created_at >= start)
    if end is not None:
        found.append(WalletTransaction.created_at < end)
    if order_id is not None:
        found.append(WalletTransaction.order_id == order_id)
    return found


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


def get_transaction(user_id: UUID, transaction_id: UUID) -> WalletTransaction:
    """One transaction of any of the member's wallets, with its ledger entries. Raises TransactionNotFound."""
    query = (
        sa.select(WalletTransaction)
        .join(Wallet, Wallet.id == WalletTransaction.wallet_id)
        .where(WalletTransaction.id == transaction_id, Wallet.user_id == user_id)
        .options(joinedload(WalletTransaction.stored_entries))
    )
    found = db.session.scalars(query).unique().one_or_none()
    if found is None:
        raise TransactionNotFound("There is no such transaction in your wallets.")
    return found
