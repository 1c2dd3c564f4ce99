"""The verbs of money. Each is one call of the tenant's posting function: one statement, its own db transaction, one row
lock. It is committed when it returns; after an error nothing is posted.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Final, LiteralString
from uuid import UUID

from app.audit.service import entry_json, mark_written
from app.auth.actors import Actor
from app.ledger.group_posting import Payment, group_posting
from app.ledger.models import (
    Movement,
    PostedTransaction,
)
from app.ledger.rehearsal import rehearsed_row
from app.metrics.observations import observed_posting
from app.sql_refusals import named_refusals
from app.users.standing import StandingProof
from app.wallets.service import with_own_wallet
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
        return observed_posting(movement.type, lambda: _posted(_row(_POST, parameters), movement))
    audited = {**parameters, "audit_entry": entry_json(actor)}
    answer = observed_posting(movement.type, lambda: _posted(_row(_POST_AUDITED, audited)[:-1], movement))
    mark_written()
    return answer


def post_own(user_id: UUID, currency: str, movement: Movement) -> tuple[PostedTransaction, bool]:
    """`post` to the member's own wallet, which the same statement finds. A missing one is opened before."""
    parameters = _parameters(movement, user_id=user_id, currency=currency)

    def post_it() -> tuple[PostedTransaction, bool]:
        return with_own_wallet(user_id, currency, lambda: _posted(_row(_POST, parameters), movement))

    return observed_posting(movement.type, post_it)


def pay_own(proof: StandingProof, currency: str, movement: Movement) -> tuple[PostedTransaction, bool]:
    """`post_own` for a payment, by a statement that also proves the member's standing. Payments of one tenant that
    arrive together are posted together. Raises StandingUnproven, and then nothing is posted; else what `post` raises.
    """
    payment = Payment(proof, currency, movement)

    def pay() -> tuple[PostedTransaction, bool]:
        return with_own_wallet(
            proof.user_id, currency, lambda: group_posting().pay(payment, lambda: _pay_alone(payment))
        )

    return observed_posting(movement.type, pay)


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
    return _posted(rehearsed_row(_POST, _parameters(movement, wallet_id=wallet_id)), movement)


def rehearse_own(user_id: UUID, currency: str, movement: Movement) -> tuple[PostedTransaction, bool]:
    """`rehearse` for the member's own wallet, which is opened in the rolled-back db transaction if it is missing."""
    parameters = _parameters(movement, user_id=user_id, currency=currency)
    return _posted(rehearsed_row(_POST, parameters, opens=(user_id, currency)), movement)


def _parameters(
    movement: Movement, *, wallet_id: UUID | None = None, user_id: UUID | None = None, currency: str | None = None
) -> dict[str, Any]:
    return {"wallet_id": wallet_id, "user_id": user_id, "currency": currency, **movement.parameters()}


def _row(statement: LiteralString, parameters: dict[str, Any]) -> Sequence[Any]:
    engine = connections().engine(current_tenant())
    with named_refusals():
        # After a broken connection, the same idempotency key makes the second try safe.
        return engine.one_statement(statement, parameters, retry=True)[0]


def _posted(row: Sequence[Any], movement: Movement) -> tuple[PostedTransaction, bool]:
    *columns, replayed = row
    return PostedTransaction.of(movement, columns), replayed


def posted_transaction(columns: Sequence[Any]) -> PostedTransaction:
    """The transaction in a row that was selected with POSTED_COLUMNS. It is no refund."""
    posted = PostedTransaction(*columns)
    return replace(posted, refundable_minor=-posted.amount_minor) if posted.type == "payment" else posted
