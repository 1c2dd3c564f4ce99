"""A member's own payments and history, and movements on any wallet of the tenant for its staff."""

from typing import Any
from uuid import UUID

from app.api.blueprint import Blueprint
from app.api.headers import gives_location, idempotency_key, needs_idempotency_key
from app.api.links import location
from app.api.pagination import Page, paginate
from app.api.refusals import refuses
from app.auth.access import Access, access, actor, caller, with_standing_proof
from app.ledger import service
from app.ledger.errors import (
    AmountOutOfRange,
    IdempotencyKeyReused,
    InsufficientFunds,
    OrderAlreadyPaid,
    PaymentNotFound,
    RefundExceedsPayment,
    TransactionNotFound,
)
from app.ledger.models import BalanceAt, Movement, PostedTransaction, TrialBalance, WalletTransaction
from app.ledger.schemas import (
    AdjustmentSchema,
    BalanceQuery,
    BalanceSchema,
    DepositSchema,
    OwnBalanceQuery,
    OwnPaymentQuery,
    OwnTransactionListQuery,
    PaymentQuery,
    PaymentSchema,
    RefundSchema,
    TransactionListQuery,
    TransactionPageSchema,
    TransactionSchema,
    TransactionWithEntriesSchema,
    TrialBalanceSchema,
)
from app.money import to_minor
from app.users.errors import MemberNotFound, StandingUnproven
from app.wallets.currencies import chosen_currency
from app.wallets.errors import WalletClosed, WalletFrozen, WalletNotFound
from app.wallets.service import currency_of, get_wallet, own_wallet

blueprint = Blueprint("ledger", __name__, url_prefix="/api", description="Movements of money and their history.")
Answer = tuple[PostedTransaction, int, dict[str, str]]


@blueprint.get("/wallet/transactions")
@access(Access.MEMBER)
@blueprint.arguments(OwnTransactionListQuery, location="query")
@blueprint.response(200, TransactionPageSchema)
@refuses(MemberNotFound)
def list_own_transactions(query: dict[str, Any]) -> Page[WalletTransaction]:
    """My wallet's transactions, newest first."""
    return _page(own_wallet(caller().user_id, chosen_currency(query)).id, query)


@blueprint.get("/wallet/transactions/<uuid:transaction_id>")
@access(Access.MEMBER)
@blueprint.response(200, TransactionWithEntriesSchema)
@refuses(TransactionNotFound)
def show_own_transaction(transaction_id: UUID) -> WalletTransaction:
    """One of my transactions, with its ledger entries."""
    return service.get_transaction(caller().user_id, transaction_id)


@blueprint.get("/wallet/balance")
@access(Access.MEMBER)
@blueprint.arguments(OwnBalanceQuery, location="query")
@blueprint.response(200, BalanceSchema)
@refuses(MemberNotFound)
def show_own_balance(query: dict[str, Any]) -> BalanceAt:
    """My wallet's balance at a moment."""
    return service.balance_at(own_wallet(caller().user_id, chosen_currency(query)), query.get("at"))


@blueprint.get("/admin/wallets/<uuid:wallet_id>/balance")
@access(Access.READER)
@blueprint.arguments(BalanceQuery, location="query")
@blueprint.response(200, BalanceSchema)
@refuses(WalletNotFound)
def show_balance(query: dict[str, Any], wallet_id: UUID) -> BalanceAt:
    """A wallet's balance at a moment."""
    return service.balance_at(get_wallet(wallet_id), query.get("at"))


@blueprint.get("/admin/trial-balance")
@access(Access.READER)
@blueprint.response(200, TrialBalanceSchema)
def show_trial_balance() -> TrialBalance:
    """The balance of every account. In each currency, debits equal credits; if not, the audit names the row."""
    return service.trial_balance()


@blueprint.post("/wallet/payments")
@access(Access.MEMBER, proves_standing=True)
@needs_idempotency_key
@gives_location
@blueprint.arguments(PaymentSchema)
@blueprint.arguments(OwnPaymentQuery, location="query")
@blueprint.response(201, TransactionSchema)
@blueprint.alt_response(200, schema=TransactionSchema)
@refuses(
    WalletNotFound,
    InsufficientFunds,
    WalletFrozen,
    WalletClosed,
    IdempotencyKeyReused,
    OrderAlreadyPaid,
    MemberNotFound,
    StandingUnproven,
)
def post_own_payment(body: dict[str, Any], query: dict[str, Any]) -> Answer:
    """Pay from my wallet: from the deposit first, then from credit. A dry run answers 200."""
    if query["dry_run"]:
        return _answer(service.rehearse_own(caller().user_id, *_own_payment(body, query)), 200)
    transaction, replayed = with_standing_proof(
        lambda proof: service.pay_own(proof, *_own_payment(body, query)),
        without=lambda: service.post_own(caller().user_id, *_own_payment(body, query)),
    )
    headers = location("wallet/transactions", transaction.id)
    if replayed:
        headers["Idempotent-Replayed"] = "true"
    return transaction, 201, headers


def _own_payment(body: dict[str, Any], query: dict[str, Any]) -> tuple[str, Movement]:
    """The currency, by the tenant's settings, and the payment."""
    currency = chosen_currency(query)
    return currency, Movement(
        type="payment",
        amount_minor=to_minor(body["amount"], currency),
        idempotency_key=idempotency_key(),
        order_id=body.get("order_id"),
        description=body.get("description"),
    )


@blueprint.get("/admin/wallets/<uuid:wallet_id>/transactions")
@access(Access.READER)
@blueprint.arguments(TransactionListQuery, location="query")
@blueprint.response(200, TransactionPageSchema)
@refuses(WalletNotFound)
def list_wallet_transactions(query: dict[str, Any], wallet_id: UUID) -> Page[WalletTransaction]:
    """A wallet's transactions, newest first."""
    return _page(get_wallet(wallet_id).id, query)


@blueprint.post("/admin/wallets/<uuid:wallet_id>/deposits")
@access(Access.TELLER, "wallet.deposit")
@needs_idempotency_key
@blueprint.arguments(DepositSchema)
@blueprint.response(201, TransactionSchema)
@refuses(WalletNotFound, WalletClosed, IdempotencyKeyReused, AmountOutOfRange)
def post_deposit(body: dict[str, Any], wallet_id: UUID) -> Answer:
    """Deposit money. It repays used credit first."""
    return _post(wallet_id, "deposit", body)


@blueprint.post("/admin/wallets/<uuid:wallet_id>/payments")
@access(Access.TELLER, "wallet.payment")
@needs_idempotency_key
@blueprint.arguments(PaymentSchema)
@blueprint.arguments(PaymentQuery, location="query")
@blueprint.response(201, TransactionSchema)
@blueprint.alt_response(200, schema=TransactionSchema)
@refuses(WalletNotFound, InsufficientFunds, WalletFrozen, WalletClosed, IdempotencyKeyReused, OrderAlreadyPaid)
def post_payment(body: dict[str, Any], query: dict[str, Any], wallet_id: UUID) -> Answer:
    """Pay from a member's wallet. A dry run answers 200."""
    if query["dry_run"]:
        return _answer(service.rehearse(wallet_id, _movement(wallet_id, "payment", body)), 200)
    return _post(wallet_id, "payment", body)


@blueprint.post("/admin/wallets/<uuid:wallet_id>/refunds")
@access(Access.TELLER, "wallet.refund")
@needs_idempotency_key
@blueprint.arguments(RefundSchema)
@blueprint.response(201, TransactionSchema)
@refuses(WalletNotFound, PaymentNotFound, RefundExceedsPayment, WalletClosed, IdempotencyKeyReused, AmountOutOfRange)
def post_refund(body: dict[str, Any], wallet_id: UUID) -> Answer:
    """Refund a payment, whole or in part, up to its amount not yet refunded."""
    return _post(wallet_id, "refund", body)


@blueprint.post("/admin/wallets/<uuid:wallet_id>/adjustments")
@access(Access.ADMIN, "wallet.adjustment")
@needs_idempotency_key
@blueprint.arguments(AdjustmentSchema)
@blueprint.response(201, TransactionSchema)
@refuses(WalletNotFound, InsufficientFunds, WalletClosed, IdempotencyKeyReused, AmountOutOfRange)
def post_adjustment(body: dict[str, Any], wallet_id: UUID) -> Answer:
    """Correct a balance up or down, with a reason."""
    return _post(wallet_id, "adjustment", body)


def _post(wallet_id: UUID, type_: str, body: dict[str, Any]) -> Answer:
    return _answer(service.post(wallet_id, _movement(wallet_id, type_, body), actor()))


def _movement(wallet_id: UUID, type_: str, body: dict[str, Any]) -> Movement:
    amount = body.get("amount")
    return Movement(
        type=type_,
        amount_minor=None if amount is None else to_minor(amount, currency_of(wallet_id)),
        idempotency_key=idempotency_key(),
        admin_id=caller().id,
        order_id=body.get("order_id"),
        refund_of=body.get("payment_id"),
        description=body.get("description"),
        reference=body.get("reference"),
        reason=body.get("reason"),
    )


def _answer(posted: tuple[PostedTransaction, bool], status: int = 201) -> Answer:
    transaction, replayed = posted
    return transaction, status, {"Idempotent-Replayed": "true"} if replayed else {}


def transaction_filters(query: dict[str, Any]) -> dict[str, Any]:
    """The filters of a list of transactions, as keyword arguments of `service.conditions`."""
    return {"type_": query.get("type"), **{name: query.get(name) for name in ("start", "end", "order_id")}}


def _page(wallet_id: UUID, query: dict[str, Any]) -> Page[WalletTransaction]:
    filters = transaction_filters(query)
    return paginate(
        query,
        lambda after, limit: service.list_transactions(wallet_id, after=after, limit=limit, **filters),
        lambda item: [item.seq],
    )
