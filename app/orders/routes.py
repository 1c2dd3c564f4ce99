"""A member's own orders in the tenant of the request, and all orders of the tenant for its staff."""

from typing import Any
from uuid import UUID

from flask import Response

from app.api.blueprint import Blueprint
from app.api.dry_runs import DryRunQuery, dry_run_answer
from app.api.headers import gives_location, idempotency_key, needs_idempotency_key
from app.api.links import location
from app.api.pagination import Found, Page, PageRequest, page_of
from app.api.refusals import refuses
from app.auth.access import Access, access, caller
from app.catalogue.errors import ProductNotFound
from app.ledger.errors import IdempotencyKeyReused, InsufficientFunds
from app.ledger.schemas import OwnDryRunQuery
from app.orders import service
from app.orders.errors import (
    OrderEmpty,
    OrderNotFound,
    ProductWithdrawn,
    ProductWithoutPrice,
    QuantityOutOfRange,
    TooManyItems,
)
from app.orders.models import Order, PostedOrder
from app.orders.schemas import (
    CancelledOrderSchema,
    OrderListQuery,
    OrderPageSchema,
    OrderSchema,
    OwnOrderListQuery,
    PlacedOrderSchema,
    PlaceOrderSchema,
    StaffOrderPageSchema,
    StaffOrderSchema,
    WalletOrderListQuery,
)
from app.users.errors import MemberNotFound
from app.wallets.currencies import chosen_currency
from app.wallets.errors import AmountOutOfRange, WalletClosed, WalletFrozen, WalletNotFound
from app.wallets.owners import Owned, owned
from app.wallets.service import get_wallet

blueprint = Blueprint("orders", __name__, url_prefix="/api", description="Orders paid from a wallet.")
_rehearsed_order = dry_run_answer(PlacedOrderSchema)
_rehearsed_cancellation = dry_run_answer(CancelledOrderSchema)
Answer = tuple[PostedOrder, int, dict[str, str]]


@blueprint.post("/orders")
@access(Access.MEMBER)
@needs_idempotency_key
@gives_location
@blueprint.arguments(PlaceOrderSchema)
@blueprint.arguments(OwnDryRunQuery, location="query")
@blueprint.response(201, PlacedOrderSchema)
@blueprint.alt_response(200, schema=PlacedOrderSchema)
@refuses(
    OrderEmpty,
    TooManyItems,
    QuantityOutOfRange,
    ProductNotFound,
    ProductWithdrawn,
    ProductWithoutPrice,
    InsufficientFunds,
    WalletFrozen,
    WalletClosed,
    IdempotencyKeyReused,
    AmountOutOfRange,
    MemberNotFound,
)
def place_order(body: dict[str, Any], query: dict[str, Any]) -> Answer | Response:
    """Order products and pay them from my wallet at the catalogue's current prices, in one db transaction. A dry run
    answers 200.
    """
    items = [(item["product_id"], item["quantity"]) for item in body["items"]]
    order, replayed = service.place(
        *(caller().user_id, chosen_currency(query), items),
        idempotency_key=idempotency_key(),
        is_dry_run=query["dry_run"],
    )
    headers = _replayed(replayed)
    if query["dry_run"]:
        return _rehearsed_order(order, headers)
    return order, 201, location("orders", order.id) | headers


@blueprint.get("/orders")
@access(Access.MEMBER)
@blueprint.arguments(OwnOrderListQuery, location="query")
@blueprint.response(200, OrderPageSchema)
def list_own_orders(query: dict[str, Any]) -> Page[Order]:
    """My orders, newest first."""
    user_id = caller().user_id
    return page_of(query, lambda page: service.list_orders(page, user_id=user_id, **_filters(query)))


@blueprint.get("/orders/<uuid:order_id>")
@access(Access.MEMBER)
@blueprint.response(200, OrderSchema)
@refuses(OrderNotFound)
def show_own_order(order_id: UUID) -> Order:
    """One of my orders."""
    return service.get_order(order_id, user_id=caller().user_id)


@blueprint.post("/orders/<uuid:order_id>/cancel")
@access(Access.MEMBER)
@needs_idempotency_key
@blueprint.arguments(DryRunQuery, location="query")
@blueprint.response(200, CancelledOrderSchema)
@refuses(OrderNotFound, WalletClosed, IdempotencyKeyReused)
def cancel_own_order(query: dict[str, Any], order_id: UUID) -> Answer | Response:
    """Cancel one of my orders and refund the amount of its payment not yet refunded. A second cancel has no effect. A
    dry run is marked `dryRun`.
    """
    order, replayed = service.cancel(
        caller().user_id, order_id, idempotency_key=idempotency_key(), is_dry_run=query["dry_run"]
    )
    headers = _replayed(replayed)
    return _rehearsed_cancellation(order, headers) if query["dry_run"] else (order, 200, headers)


@blueprint.get("/admin/orders")
@access(Access.READER)
@blueprint.arguments(OrderListQuery, location="query")
@blueprint.response(200, StaffOrderPageSchema)
def list_orders(query: dict[str, Any]) -> Page[Owned]:
    """The orders of all members, newest first."""
    return _staff_page(query, user_id=query.get("user_id"))


@blueprint.get("/admin/orders/<uuid:order_id>")
@access(Access.READER)
@blueprint.response(200, StaffOrderSchema)
@refuses(OrderNotFound)
def show_order(order_id: UUID) -> Owned:
    """One order of any member."""
    (found,) = owned([service.get_order(order_id)])
    return found


@blueprint.get("/admin/wallets/<uuid:wallet_id>/orders")
@access(Access.READER)
@blueprint.arguments(WalletOrderListQuery, location="query")
@blueprint.response(200, StaffOrderPageSchema)
@refuses(WalletNotFound)
def list_wallet_orders(query: dict[str, Any], wallet_id: UUID) -> Page[Owned]:
    """The orders that a wallet paid, newest first."""
    return _staff_page(query, user_id=get_wallet(wallet_id).user_id, wallet_id=wallet_id)


def _staff_page(query: dict[str, Any], *, user_id: UUID | None, wallet_id: UUID | None = None) -> Page[Owned]:
    def fetch(page: PageRequest) -> Found[Owned]:
        found = service.list_orders(page, user_id=user_id, wallet_id=wallet_id, **_filters(query))
        return found.showing(owned(found.items))

    return page_of(query, fetch)


def _filters(query: dict[str, Any]) -> dict[str, Any]:
    return {name: query.get(name) for name in ("status", "start", "end")}


def _replayed(replayed: bool) -> dict[str, str]:
    return {"Idempotent-Replayed": "true"} if replayed else {}
