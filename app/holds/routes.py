"""A member's holds on their own wallets, and an admin's view of them."""

from typing import Any
from uuid import UUID

from flask import Response

from app.api.blueprint import Blueprint
from app.api.dry_runs import DryRunQuery, dry_run_answer
from app.api.headers import gives_location, idempotency_key, needs_idempotency_key
from app.api.links import location
from app.api.pagination import Found, Page, PageRequest, page_of
from app.api.refusals import refuses
from app.audit.service import add_entry
from app.auth.access import Access, access, actor, caller
from app.holds import service
from app.holds.errors import AlreadyCaptured, CaptureExceedsHold, ExpiryInThePast, HoldExpired, HoldNotFound, HoldVoided
from app.holds.models import AuthorisedHold, Hold
from app.holds.schemas import (
    AuthorisedHoldSchema,
    AuthoriseSchema,
    CaptureSchema,
    HoldListQuery,
    HoldPageSchema,
    HoldSchema,
    OwnHoldListQuery,
    StaffHoldPageSchema,
    StaffHoldSchema,
)
from app.ledger.errors import IdempotencyKeyReused, InsufficientFunds, OrderAlreadyPaid
from app.ledger.models import PostedTransaction
from app.ledger.schemas import OwnDryRunQuery, PostedTransactionSchema
from app.money import to_minor
from app.users.errors import MemberNotFound
from app.wallets.currencies import chosen_currency
from app.wallets.errors import WalletClosed, WalletFrozen, WalletNotFound
from app.wallets.owners import Owned, owned
from app.wallets.service import get_wallet, own_wallet

_rehearsed_hold = dry_run_answer(AuthorisedHoldSchema)
_rehearsed_transaction = dry_run_answer(PostedTransactionSchema)
blueprint = Blueprint("holds", __name__, url_prefix="/api", description="Amounts reserved for a later payment.")


@blueprint.get("/wallet/holds")
@access(Access.MEMBER)
@blueprint.arguments(OwnHoldListQuery, location="query")
@blueprint.response(200, HoldPageSchema)
def list_own_holds(query: dict[str, Any]) -> Page[Hold]:
    """My wallet's holds, newest first."""
    wallet_id = own_wallet(caller().user_id, chosen_currency(query)).id
    return page_of(query, lambda page: service.list_holds(page, wallet_id=wallet_id, **_filters(query)))


@blueprint.get("/wallet/holds/<uuid:hold_id>")
@access(Access.MEMBER)
@blueprint.response(200, HoldSchema)
@refuses(HoldNotFound)
def show_own_hold(hold_id: UUID) -> Hold:
    """One of my holds."""
    return service.get_hold(hold_id, user_id=caller().user_id)


@blueprint.post("/wallet/holds")
@access(Access.MEMBER)
@needs_idempotency_key
@gives_location
@blueprint.arguments(AuthoriseSchema)
@blueprint.arguments(OwnDryRunQuery, location="query")
@blueprint.response(201, AuthorisedHoldSchema)
@blueprint.alt_response(200, schema=AuthorisedHoldSchema)
@refuses(
    InsufficientFunds,
    WalletFrozen,
    WalletClosed,
    IdempotencyKeyReused,
    OrderAlreadyPaid,
    ExpiryInThePast,
    MemberNotFound,
)
def authorise_hold(
    body: dict[str, Any], query: dict[str, Any]
) -> tuple[AuthorisedHold, int, dict[str, str]] | Response:
    """Reserve an amount for a later payment. It counts as held and stays in the balance. A dry run answers 200."""
    currency = chosen_currency(query)
    hold, replayed = service.authorise(
        *(caller().user_id, currency),
        amount_minor=to_minor(body["amount"], currency),
        idempotency_key=idempotency_key(),
        expires_at=body.get("expires_at"),
        order_id=body.get("order_id"),
        description=body.get("description"),
        is_dry_run=query["dry_run"],
    )
    headers = {"Idempotent-Replayed": "true"} if replayed else {}
    if query["dry_run"]:
        return _rehearsed_hold(hold, headers)
    return hold, 201, location("wallet/holds", hold.id) | headers


@blueprint.post("/wallet/holds/<uuid:hold_id>/capture")
@access(Access.MEMBER)
@needs_idempotency_key
@gives_location
@blueprint.arguments(CaptureSchema)
@blueprint.arguments(DryRunQuery, location="query")
@blueprint.response(201, PostedTransactionSchema)
@blueprint.alt_response(200, schema=PostedTransactionSchema)
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
def capture_hold(
    body: dict[str, Any], query: dict[str, Any], hold_id: UUID
) -> tuple[PostedTransaction, int, dict[str, str]] | Response:
    """Pay from a hold: the remaining amount or a part of it, repeatedly until nothing remains. A dry run answers
    200.

    An amount left out with a used key is taken as that of the first request.
    """
    amount = body.get("amount")
    transaction, replayed = service.capture(
        caller().user_id,
        hold_id,
        amount_minor=None if amount is None else to_minor(amount, service.currency_of(caller().user_id, hold_id)),
        idempotency_key=idempotency_key(),
        is_dry_run=query["dry_run"],
    )
    headers = {"Idempotent-Replayed": "true"} if replayed else {}
    if query["dry_run"]:
        return _rehearsed_transaction(transaction, headers)
    return transaction, 201, location("wallet/transactions", transaction.id) | headers


@blueprint.post("/wallet/holds/<uuid:hold_id>/void")
@access(Access.MEMBER)
@blueprint.response(200, HoldSchema)
@refuses(HoldNotFound, AlreadyCaptured, HoldExpired)
def void_own_hold(hold_id: UUID) -> Hold:
    """Release the remaining amount of a hold. A second void has no effect."""
    return service.void_own(caller().user_id, hold_id)


@blueprint.get("/admin/wallets/<uuid:wallet_id>/holds")
@access(Access.READER)
@blueprint.arguments(HoldListQuery, location="query")
@blueprint.response(200, StaffHoldPageSchema)
@refuses(WalletNotFound)
def list_wallet_holds(query: dict[str, Any], wallet_id: UUID) -> Page[Owned]:
    """A wallet's holds, newest first."""
    get_wallet(wallet_id)
    return _staff_page(query, wallet_id)


@blueprint.get("/admin/holds")
@access(Access.READER)
@blueprint.arguments(HoldListQuery, location="query")
@blueprint.response(200, StaffHoldPageSchema)
def list_holds(query: dict[str, Any]) -> Page[Owned]:
    """The holds of all wallets, newest first."""
    return _staff_page(query)


@blueprint.get("/admin/holds/<uuid:hold_id>")
@access(Access.READER)
@blueprint.response(200, StaffHoldSchema)
@refuses(HoldNotFound)
def show_hold(hold_id: UUID) -> Owned:
    """One hold of any wallet."""
    (found,) = owned([service.get_hold(hold_id)])
    return found


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


def _filters(query: dict[str, Any]) -> dict[str, Any]:
    return {name: query.get(name) for name in ("status", "start", "end")}


def _staff_page(query: dict[str, Any], wallet_id: UUID | None = None) -> Page[Owned]:
    def fetch(page: PageRequest) -> Found[Owned]:
        found = service.list_holds(page, wallet_id=wallet_id, **_filters(query))
        return found.showing(owned(found.items))

    return page_of(query, fetch)
