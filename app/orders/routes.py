"""A member's own orders in the tenant of the request."""

from typing import Any
from uuid import UUID

from app.api.blueprint import Blueprint
from app.api.headers import gives_location, idempotency_key, needs_idempotency_key
from app.api.links import location
from app.api.pagination import Page, paginate
from app.api.refusals import refuses
from app.auth.access import Access, access, caller
from app.ledger.errors import AmountOutOfRange, IdempotencyKeyReused, InsufficientFunds
from app.orders import service
from app.orders.errors import (
    OrderEmpty,
    OrderNotFound,
    ProductNotFound,
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
    PlacedOrderSchema,
    PlaceOrderSchema,
)
from app.users.errors import MemberNotFound
from app.wallets.currencies import CurrencyQuery, chosen_currency
from app.wallets.errors import WalletClosed, WalletFrozen, WalletNotFound

blueprint = Blueprint("orders", __name__, url_prefix="/api/orders", description="Orders paid from a wallet.")
Answer = tuple[PostedOrder, int, dict[str, str]]


@blueprint.post("")
@access(Access.MEMBER)
@needs_idempotency_key
@gives_location
@blueprint.arguments(PlaceOrderSchema)
@blueprint.arguments(CurrencyQuery, location="query")
@blueprint.response(201, PlacedOrderSchema)
@refuses(
    WalletNotFound,
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
def place_order(body: dict[str, Any], query: dict[str, Any]) -> Answer:
    """Order products and pay them from my wallet at the catalogue's current prices, in one db transaction."""
    items = [(item["product_id"], item["quantity"]) for item in body["items"]]
    order, replayed = service.place(caller().user_id, chosen_currency(query), items, idempotency_key=idempotency_key())
    return order, 201, location("orders", order.id) | _replayed(replayed)


@blueprint.get("")
@access(Access.MEMBER)
@blueprint.arguments(OrderListQuery, location="query")
@blueprint.response(200, OrderPageSchema)
def list_own_orders(query: dict[str, Any]) -> Page[Order]:
    """My orders, newest first."""
    user_id = caller().user_id
    return paginate(
        query,
        lambda after, limit: service.list_orders(user_id, after=after, limit=limit),
        lambda item: [item.created_at, item.id],
    )


@blueprint.get("/<uuid:order_id>")
@access(Access.MEMBER)
@blueprint.response(200, OrderSchema)
@refuses(OrderNotFound)
def show_own_order(order_id: UUID) -> Order:
    """One of my orders."""
    return service.get_order(caller().user_id, order_id)


@blueprint.post("/<uuid:order_id>/cancel")
@access(Access.MEMBER)
@needs_idempotency_key
@blueprint.response(200, CancelledOrderSchema)
@refuses(OrderNotFound, WalletClosed, IdempotencyKeyReused)
def cancel_own_order(order_id: UUID) -> Answer:
    """Cancel one of my orders and refund the amount of its payment not yet refunded. A second cancel has no effect."""
    order, replayed = service.cancel(caller().user_id, order_id, idempotency_key=idempotency_key())
    return order, 200, _replayed(replayed)


def _replayed(replayed: bool) -> dict[str, str]:
    return {"Idempotent-Replayed": "true"} if replayed else {}
