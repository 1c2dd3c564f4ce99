"""A member's holds on their own wallets, and an admin's view of them."""

from typing import Any
from uuid import UUID

from app.api.blueprint import Blueprint
from app.api.headers import gives_location, idempotency_key, needs_idempotency_key
from app.api.links import location
from app.api.pagination import Page, PageQuery, paginate
from app.api.refusals import refuses
from app.audit.service import add_entry
from app.auth.access import Access, access, actor, caller
from app.holds import service
from app.holds.errors import AlreadyCaptured, CaptureExceedsHold, ExpiryInThePast, HoldExpired, HoldNotFound, HoldVoided
from app.holds.models import AuthorisedHold, Hold
from app.holds.schemas import (
    AuthoriseSchema,
    CaptureSchema,
    HoldListQuery,
    HoldPageSchema,
    HoldSchema,
)
from app.ledger.errors import IdempotencyKeyReused, InsufficientFunds, OrderAlreadyPaid
from app.ledger.models import PostedTransaction
from app.ledger.schemas import TransactionSchema
from app.money import to_minor
from app.users.errors import MemberNotFound
from app.wallets.currencies import CurrencyQuery, chosen_currency
from app.wallets.errors import WalletClosed, WalletFrozen, WalletNotFound
from app.wallets.service import get_wallet, own_wallet

blueprint = Blueprint("holds", __name__, url_prefix="/api", description="Amounts reserved for a later payment.")


@blueprint.get("/wallet/holds")
@access(Access.MEMBER)
@blueprint.arguments(HoldListQuery, location="query")
@blueprint.response(200, HoldPageSchema)
@refuses(MemberNotFound)
def list_own_holds(query: dict[str, Any]) -> Page[Hold]:
    """My holds, newest first."""
    return _page(own_wallet(caller().user_id, chosen_currency(query)).id, query)


@blueprint.post("/wallet/holds")
@access(Access.MEMBER)
@needs_idempotency_key
@blueprint.arguments(AuthoriseSchema)
@blueprint.arguments(CurrencyQuery, location="query")
@blueprint.response(201, HoldSchema)
@refuses(
    WalletNotFound,
    InsufficientFunds,
    WalletFrozen,
    WalletClosed,
    IdempotencyKeyReused,
    OrderAlreadyPaid,
    ExpiryInThePast,
    MemberNotFound,
)
def authorise_hold(body: dict[str, Any], query: dict[str, Any]) -> tuple[AuthorisedHold, int, dict[str, str]]:
    """Reserve an amount for a later payment. It counts as held and stays in the balance."""
    currency = chosen_currency(query)
    hold, replayed = service.authorise(
        *(caller().user_id, currency),
        amount_minor=to_minor(body["amount"], currency),
        idempotency_key=idempotency_key(),
        expires_at=body.get("expires_at"),
        order_id=body.get("order_id"),
        description=body.get("description"),
    )
    return hold, 201, {"Idempotent-Replayed": "true"} if replayed else {}


@blueprint.post("/wallet/holds/<uuid:hold_id>/capture")
@access(Access.MEMBER)
@needs_idempotency_key
@gives_location
@blueprint.arguments(CaptureSchema)
@blueprint.response(201, TransactionSchema)
@refuses(
    HoldNotFound,
    AlreadyCaptured,
    HoldVoided,
    HoldExpired,
    CaptureExceedsHold,
    WalletFrozen,
    WalletClosed,
    IdempotencyKeyReused,
    OrderAlreadyPaid,
)
def capture_hold(body: dict[str, Any], hold_id: UUID) -> tuple[PostedTransaction, int, dict[str, str]]:
    """Pay from a hold: the remaining amount or a part of it, repeatedly until nothing remains."""
    amount = body.get("amount")
    transaction, replayed = service.capture(
        caller().user_id,
        hold_id,
        amount_minor=None if amount is None else to_minor(amount, service.currency_of(caller().user_id, hold_id)),
        idempotency_key=idempotency_key(),
    )
    replay = {"Idempotent-Replayed": "true"} if replayed else {}
    return transaction, 201, location("wallet/transactions", transaction.id) | replay


@blueprint.post("/wallet/holds/<uuid:hold_id>/void")
@access(Access.MEMBER)
@blueprint.response(200, HoldSchema)
@refuses(HoldNotFound, AlreadyCaptured, HoldExpired)
def void_own_hold(hold_id: UUID) -> Hold:
    """Release the remaining amount of a hold. A second void has no effect."""
    return service.void_own(caller().user_id, hold_id)


@blueprint.get("/admin/wallets/<uuid:wallet_id>/holds")
@access(Access.READER)
@blueprint.arguments(PageQuery, location="query")
@blueprint.response(200, HoldPageSchema)
@refuses(WalletNotFound)
def list_wallet_holds(query: dict[str, Any], wallet_id: UUID) -> Page[Hold]:
    """A wallet's holds, newest first."""
    return _page(get_wallet(wallet_id).id, query)


@blueprint.post("/admin/wallets/<uuid:wallet_id>/holds/<uuid:hold_id>/void")
@access(Access.ADMIN, "hold.void")
@blueprint.response(200, HoldSchema)
@refuses(HoldNotFound, WalletNotFound, AlreadyCaptured, HoldExpired)
def void_hold(wallet_id: UUID, hold_id: UUID) -> Hold:
    """Release the remaining amount of a member's hold, for instance before the wallet is closed or its limit
    lowered.
    """
    hold = service.void(wallet_id, hold_id)
    add_entry(actor(), "hold.void", wallet_id=wallet_id, subject=str(hold_id), after={"status": hold.status})
    return hold


def _page(wallet_id: UUID, query: dict[str, Any]) -> Page[Hold]:
    return paginate(
        query,
        lambda after, limit: service.list_holds(wallet_id, after=after, limit=limit),
        lambda item: [item.created_at, item.id],
    )
