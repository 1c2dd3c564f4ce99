"""The verbs of orders. Placing and cancelling are one call of the tenant's SQL function each: one statement, its own db
transaction, one row lock. It is committed when it returns; after an error nothing is done.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import selectinload

from app.db import db
from app.orders.errors import OrderNotFound
from app.orders.models import Order, PostedItem, PostedOrder
from app.sql_refusals import named_refusals
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

_SHOWN: Final = (
    *("id", "user_id", "wallet_id", "currency", "status", "total_minor", "payment_id", "refund_id"),
    *("created_at", "cancelled_at"),
)
_PLACE: Final = (
    f"SELECT {', '.join(f'(placed).{name}' for name in _SHOWN)}, items, balance_after_minor, NULL, replayed"  # noqa: S608
    " FROM order_place_v1(%s, %s, %s, %s)"
)
_CANCEL: Final = (
    f"SELECT {', '.join(f'(cancelled).{name}' for name in _SHOWN)}, items, balance_after_minor, refunded_minor,"  # noqa: S608
    " replayed FROM order_cancel_v2(%s, %s, %s)"
)


def place(
    user_id: UUID, currency: str, items: Sequence[tuple[UUID, int]], *, idempotency_key: str
) -> tuple[PostedOrder, bool]:
    """Order products in these quantities and pay them from the member's wallet in the currency, at the catalogue's
    current prices. Returns the order, and whether an earlier request placed it.

    Locks the wallet's row. Raises OrderEmpty, TooManyItems, QuantityOutOfRange, ProductNotFound, ProductWithdrawn,
    ProductWithoutPrice, WalletNotFound, WalletFrozen, WalletClosed, InsufficientFunds, IdempotencyKeyReused,
    AmountOutOfRange.
    """
    asked = json.dumps([[str(product_id), quantity] for product_id, quantity in items])
    return _call(_PLACE, (user_id, currency, asked, idempotency_key))


def cancel(user_id: UUID, order_id: UUID, *, idempotency_key: str) -> tuple[PostedOrder, bool]:
    """Cancel the member's order and refund the amount of its payment not yet refunded. Returns the order, and whether
    it was cancelled before; the answer is the same.

    Locks the wallet's row. Raises OrderNotFound, also for another member's order, WalletClosed, IdempotencyKeyReused.
    """
    return _call(_CANCEL, (user_id, order_id, idempotency_key))


def list_orders(user_id: UUID, *, after: list[Any] | None, limit: int) -> Sequence[Order]:
    """The member's orders with their items, newest first; `after` is (created_at, id)."""
    order = (Order.created_at, Order.id)
    query = (
        sa.select(Order)
        .where(Order.user_id == user_id)
        .options(selectinload(Order.items))
        .order_by(*(column.desc() for column in order))
        .limit(limit)
    )
    if after is not None:
        position = sa.tuple_(sa.literal(datetime.fromisoformat(after[0])), sa.literal(UUID(after[1])))
        query = query.where(sa.tuple_(*order) < position)
    return db.session.scalars(query).all()


def get_order(user_id: UUID, order_id: UUID) -> Order:
    """One of the member's orders with its items. Raises OrderNotFound."""
    query = sa.select(Order).where(Order.id == order_id, Order.user_id == user_id).options(selectinload(Order.items))
    found = db.session.scalar(query)
    if found is None:
        raise OrderNotFound(OrderNotFound.text)
    return found


def _call(statement: str, parameters: tuple[Any, ...]) -> tuple[PostedOrder, bool]:
    engine = connections().engine(current_tenant())
    with named_refusals():
        # After a broken connection, the same idempotency key makes the second try safe.
        rows = engine.one_statement(statement, parameters, retry=True)
    *columns, listed, balance_after_minor, refunded_minor, replayed = rows[0]
    shown = dict(zip(_SHOWN, columns, strict=True))
    items = tuple(_item(item, shown["currency"]) for item in listed)
    order = PostedOrder(**shown, items=items, balance_after_minor=balance_after_minor, refunded_minor=refunded_minor)
    return order, replayed


def _item(listed: dict[str, Any], currency: str) -> PostedItem:
    return PostedItem(**listed | {"product_id": UUID(listed["product_id"]), "currency": currency})
