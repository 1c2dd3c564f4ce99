"""A member's own payments and history, and the admin's movements on any wallet of the tenant."""

from typing import Any
from uuid import UUID

from app.http import IDEMPOTENCY_KEY_HEADER, Blueprint, idempotency_key, wants_header
from app.ledger import service
from app.ledger.models import PostedTransaction, WalletTransaction
from app.ledger.schemas import (
    AdjustmentSchema,
    DepositSchema,
    PaymentSchema,
    RefundSchema,
    TransactionListQuery,
    TransactionPageSchema,
    TransactionSchema,
    TransactionWithEntriesSchema,
)
from app.ledger.service import Movement
from app.money import to_minor
from app.pagination import Page, paginate
from app.tenancy import Access, access, caller
from app.wallets.service import get_wallet, main_currency, own_wallet

blueprint = Blueprint("ledger", __name__, url_prefix="/api", description="Money moved and its history.")
needs_key = wants_header(
    IDEMPOTENCY_KEY_HEADER,
    "New for each intent, the same for a retry: the same key and request have the same answer.",
    minLength=1,
    maxLength=200,
)
Answer = tuple[PostedTransaction, int, dict[str, str]]


@blueprint.get("/wallet/transactions")
@access(Access.MEMBER)
@blueprint.arguments(TransactionListQuery, location="query")
@blueprint.response(200, TransactionPageSchema)
def list_own_transactions(query: dict[str, Any]) -> Page[WalletTransaction]:
    """My transactions in this tenant, newest first."""
    return _page(own_wallet(caller().user_id).id, query)


@blueprint.get("/wallet/transactions/<uuid:transaction_id>")
@access(Access.MEMBER)
@blueprint.response(200, TransactionWithEntriesSchema)
def show_own_transaction(transaction_id: UUID) -> WalletTransaction:
    """One of my transactions, with its ledger entries."""
    return service.get_transaction(own_wallet(caller().user_id).id, transaction_id)


@blueprint.post("/wallet/payments")
@access(Access.MEMBER)
@needs_key
@blueprint.arguments(PaymentSchema)
@blueprint.response(201, TransactionSchema)
def pay(body: dict[str, Any]) -> Answer:
    """Pay from my wallet: from the deposit first, then from credit."""
    currency = main_currency()
    movement = Movement(
        type="payment",
        amount_minor=to_minor(body["amount"], currency),
        idempotency_key=idempotency_key(),
        order_id=body.get("order_id"),
        description=body.get("description"),
    )
    return _answer(service.post_own(caller().user_id, currency, movement))


@blueprint.get("/admin/wallets/<uuid:wallet_id>/transactions")
@access(Access.ADMIN)
@blueprint.arguments(TransactionListQuery, location="query")
@blueprint.response(200, TransactionPageSchema)
def list_transactions(query: dict[str, Any], wallet_id: UUID) -> Page[WalletTransaction]:
    """A wallet's transactions, newest first."""
    return _page(get_wallet(wallet_id).id, query)


@blueprint.post("/admin/wallets/<uuid:wallet_id>/deposits")
@access(Access.ADMIN)
@needs_key
@blueprint.arguments(DepositSchema)
@blueprint.response(201, TransactionSchema)
def deposit(body: dict[str, Any], wallet_id: UUID) -> Answer:
    """Put money in. It repays credit in use first."""
    return _post(wallet_id, "deposit", body)


@blueprint.post("/admin/wallets/<uuid:wallet_id>/payments")
@access(Access.ADMIN)
@needs_key
@blueprint.arguments(PaymentSchema)
@blueprint.response(201, TransactionSchema)
def pay_for_member(body: dict[str, Any], wallet_id: UUID) -> Answer:
    """Pay from a member's wallet."""
    return _post(wallet_id, "payment", body)


@blueprint.post("/admin/wallets/<uuid:wallet_id>/refunds")
@access(Access.ADMIN)
@needs_key
@blueprint.arguments(RefundSchema)
@blueprint.response(201, TransactionSchema)
def refund(body: dict[str, Any], wallet_id: UUID) -> Answer:
    """Give a payment back, whole or in part, never more than is left of it."""
    return _post(wallet_id, "refund", body)


@blueprint.post("/admin/wallets/<uuid:wallet_id>/adjustments")
@access(Access.ADMIN)
@needs_key
@blueprint.arguments(AdjustmentSchema)
@blueprint.response(201, TransactionSchema)
def adjust(body: dict[str, Any], wallet_id: UUID) -> Answer:
    """Correct a balance, up or down, with a reason."""
    return _post(wallet_id, "adjustment", body)


def _post(wallet_id: UUID, type_: str, body: dict[str, Any]) -> Answer:
    amount = body.get("amount")
    movement = Movement(
        type=type_,
        amount_minor=None if amount is None else to_minor(amount, main_currency()),
        idempotency_key=idempotency_key(),
        admin_id=caller().user_id,
        order_id=body.get("order_id"),
        refund_of=body.get("payment_id"),
        description=body.get("description"),
        reference=body.get("reference"),
        reason=body.get("reason"),
    )
    return _answer(service.post(wallet_id, movement))


def _answer(posted: tuple[PostedTransaction, bool]) -> Answer:
    transaction, replayed = posted
    return transaction, 201, {"Idempotent-Replayed": "true"} if replayed else {}


def _page(wallet_id: UUID, query: dict[str, Any]) -> Page[WalletTransaction]:
    filters = {"type_": query.get("type"), "start": query.get("start"), "end": query.get("end")}
    return paginate(
        query,
        lambda after, limit: service.list_transactions(wallet_id, after=after, limit=limit, **filters),
        lambda item: [item.created_at, item.seq],
    )
