"""A member's own payments and history, and movements on any wallet of the tenant for its staff."""

from typing import Any
from uuid import UUID

from flask import Response

from app.api.blueprint import Blueprint
from app.api.dry_runs import DryRunQuery, dry_run_answer
from app.api.headers import gives_location, idempotency_key, needs_idempotency_key
from app.api.links import location
from app.api.pagination import Page, page_of
from app.api.refusals import refuses
from app.auth.access import Access, access, actor, caller, with_standing_proof
from app.ledger import history, service
from app.ledger.errors import (
    IdempotencyKeyReused,
    InsufficientFunds,
    OrderAlreadyPaid,
    PaymentNotFound,
    RefundExceedsPayment,
    TransactionNotFound,
)
from app.ledger.history import Filters
from app.ledger.models import BalanceAt, Movement, PostedTransaction, TrialBalance, WalletTransaction
from app.ledger.schemas import (
    AdjustmentSchema,
    BalanceQuery,
    BalanceSchema,
    DepositSchema,
    OwnBalanceQuery,
    OwnDryRunQuery,
    OwnTransactionListQuery,
    PaymentSchema,
    PostedTransactionSchema,
    RefundSchema,
    StaffTransactionPageSchema,
    StaffTransactionWithEntriesSchema,
    TransactionListQuery,
    TransactionPageSchema,
    TransactionWithEntriesSchema,
    TrialBalanceSchema,
)
from app.money import to_minor
from app.users.errors import MemberNotFound, StandingUnproven
from app.wallets.currencies import chosen_currency
from app.wallets.errors import AmountOutOfRange, WalletClosed, WalletFrozen, WalletNotFound
from app.wallets.owners import Owned
from app.wallets.service import currency_of, get_wallet, own_wallet

_FILTERS = ("start", "end", "order_id", "type", "reference", "text", "actor_id")
_rehearsed = dry_run_answer(PostedTransactionSchema)
blueprint = Blueprint("ledger", __name__, url_prefix="/api", description="Movements of money and their history.")
Answer = tuple[PostedTransaction, int, dict[str, str]]


@blueprint.get("/wallet/transactions")
@access(Access.MEMBER)
@blueprint.arguments(OwnTransactionListQuery, location="query")
@blueprint.response(200, TransactionPageSchema)
def list_own_transactions(query: dict[str, Any]) -> Page[WalletTransaction]:
    """My wallet's transactions, newest first."""
    wallet = own_wallet(caller().user_id, chosen_currency(query))
    filters = transaction_filters(query, wallet.currency)
    return page_of(query, lambda page: history.list_transactions(wallet.id, page, filters))


@blueprint.get("/wallet/transactions/<uuid:transaction_id>")
@access(Access.MEMBER)
@blueprint.response(200, TransactionWithEntriesSchema)
@refuses(TransactionNotFound)
def show_own_transaction(transaction_id: UUID) -> WalletTransaction:
    """One of my transactions, with its ledger entries."""
    return history.get_transaction(transaction_id, user_id=caller().user_id)


@blueprint.get("/wallet/balance")
@access(Access.MEMBER)
@blueprint.arguments(OwnBalanceQuery, location="query")
@blueprint.response(200, BalanceSchema)
def show_own_balance(query: dict[str, Any]) -> BalanceAt:
    """My wallet's balance at a moment."""
    return history.balance_at(own_wallet(caller().user_id, chosen_currency(query)), query.get("at"))


@blueprint.get("/admin/wallets/<uuid:wallet_id>/balance")
@access(Access.READER)
@blueprint.arguments(BalanceQuery, location="query")
@blueprint.response(200, BalanceSchema)
@refuses(WalletNotFound)
def show_balance(query: dict[str, Any], wallet_id: UUID) -> BalanceAt:
    """A wallet's balance at a moment."""
    return history.balance_at(get_wallet(wallet_id), query.get("at"))


@blueprint.get("/admin/trial-balance")
@access(Access.READER)
@blueprint.response(200, TrialBalanceSchema)
def show_trial_balance() -> TrialBalance:
    """The balance of every account. In each currency, debits equal credits; if not, the audit names the row."""
    return history.trial_balance()


@blueprint.post("/wallet/payments")
@access(Access.MEMBER, proves_standing=True)
@needs_idempotency_key
@gives_location
@blueprint.arguments(PaymentSchema)
@blueprint.arguments(OwnDryRunQuery, location="query")
@blueprint.response(201, PostedTransactionSchema)
@blueprint.alt_response(200, schema=PostedTransactionSchema)
@refuses(
    InsufficientFunds,
    WalletFrozen,
    WalletClosed,
    IdempotencyKeyReused,
    OrderAlreadyPaid,
    MemberNotFound,
    StandingUnproven,
)
def post_own_payment(body: dict[str, Any], query: dict[str, Any]) -> Answer | Response:
    """Pay from my wallet: from the deposit first, then from credit. A dry run answers 200."""
    if query["dry_run"]:
        return _dry_run(service.rehearse_own(caller().user_id, *_own_payment(body, query)))
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
@blueprint.response(200, StaffTransactionPageSchema)
@refuses(WalletNotFound)
def list_wallet_transactions(query: dict[str, Any], wallet_id: UUID) -> Page[Owned]:
    """A wallet's transactions, newest first."""
    filters = transaction_filters(query, get_wallet(wallet_id).currency)
    return page_of(query, lambda page: history.with_people(history.list_transactions(wallet_id, page, filters)))


@blueprint.get("/admin/transactions/<uuid:transaction_id>")
@access(Access.READER)
@blueprint.response(200, StaffTransactionWithEntriesSchema)
@refuses(TransactionNotFound)
def show_transaction(transaction_id: UUID) -> Owned:
    """One transaction of any wallet, with its ledger entries."""
    (found,) = history.transactions_with_people([history.get_transaction(transaction_id)])
    return found


@blueprint.post("/admin/wallets/<uuid:wallet_id>/deposits")
@access(Access.TELLER, "wallet.deposit")
@needs_idempotency_key
@gives_location
@blueprint.arguments(DepositSchema)
@blueprint.arguments(DryRunQuery, location="query")
@blueprint.response(201, PostedTransactionSchema)
@blueprint.alt_response(200, schema=PostedTransactionSchema)
@refuses(WalletNotFound, WalletClosed, IdempotencyKeyReused, AmountOutOfRange)
def post_deposit(body: dict[str, Any], query: dict[str, Any], wallet_id: UUID) -> Answer | Response:
    """Deposit money. It repays used credit first. A dry run answers 200."""
    return _post(wallet_id, "deposit", body, query)


@blueprint.post("/admin/wallets/<uuid:wallet_id>/payments")
@access(Access.TELLER, "wallet.payment")
@needs_idempotency_key
@gives_location
@blueprint.arguments(PaymentSchema)
@blueprint.arguments(DryRunQuery, location="query")
@blueprint.response(201, PostedTransactionSchema)
@blueprint.alt_response(200, schema=PostedTransactionSchema)
@refuses(WalletNotFound, InsufficientFunds, WalletFrozen, WalletClosed, IdempotencyKeyReused, OrderAlreadyPaid)
def post_payment(body: dict[str, Any], query: dict[str, Any], wallet_id: UUID) -> Answer | Response:
    """Pay from a member's wallet. A dry run answers 200."""
    return _post(wallet_id, "payment", body, query)


@blueprint.post("/admin/wallets/<uuid:wallet_id>/refunds")
@access(Access.TELLER, "wallet.refund")
@needs_idempotency_key
@gives_location
@blueprint.arguments(RefundSchema)
@blueprint.arguments(DryRunQuery, location="query")
@blueprint.response(201, PostedTransactionSchema)
@blueprint.alt_response(200, schema=PostedTransactionSchema)
@refuses(WalletNotFound, PaymentNotFound, RefundExceedsPayment, WalletClosed, IdempotencyKeyReused, AmountOutOfRange)
def post_refund(body: dict[str, Any], query: dict[str, Any], wallet_id: UUID) -> Answer | Response:
    """Refund a payment, whole or in part, up to its amount not yet refunded. A dry run answers 200."""
    return _post(wallet_id, "refund", body, query)


@blueprint.post("/admin/wallets/<uuid:wallet_id>/adjustments")
@access(Access.ADMIN, "wallet.adjustment")
@needs_idempotency_key
@gives_location
@blueprint.arguments(AdjustmentSchema)
@blueprint.arguments(DryRunQuery, location="query")
@blueprint.response(201, PostedTransactionSchema)
@blueprint.alt_response(200, schema=PostedTransactionSchema)
@refuses(WalletNotFound, InsufficientFunds, WalletClosed, IdempotencyKeyReused, AmountOutOfRange)
def post_adjustment(body: dict[str, Any], query: dict[str, Any], wallet_id: UUID) -> Answer | Response:
    """Correct a balance up or down, with a reason. A dry run answers 200."""
    return _post(wallet_id, "adjustment", body, query)


def _post(wallet_id: UUID, type_: str, body: dict[str, Any], query: dict[str, Any]) -> Answer | Response:
    movement = _movement(wallet_id, type_, body)
    if query["dry_run"]:
        return _dry_run(service.rehearse(wallet_id, movement))
    return _answer(service.post(wallet_id, movement, actor()))


def _dry_run(rehearsed: tuple[PostedTransaction, bool]) -> Response:
    transaction, replayed = rehearsed
    return _rehearsed(transaction, {"Idempotent-Replayed": "true"} if replayed else {})


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


def _answer(posted: tuple[PostedTransaction, bool]) -> Answer:
    transaction, replayed = posted
    headers = location("admin/transactions", transaction.id)
    if replayed:
        headers["Idempotent-Replayed"] = "true"
    return transaction, 201, headers


def transaction_filters(query: dict[str, Any], currency: str | None = None) -> Filters:
    """The filters of a list of transactions in this currency; None for one of all currencies."""
    told = {name: query[name] for name in _FILTERS if name in query}
    amounts = [(name, field) for name, field in (("least", "minAmount"), ("most", "maxAmount")) if name in query]
    if currency is None and (amounts or "currency" in query):
        told["currency"] = currency = chosen_currency(query)
    for name, field in amounts:
        told[f"{name}_minor"] = to_minor(query[name], str(currency), field)
    return Filters(**told)
