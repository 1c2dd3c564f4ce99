"""The verbs of orders. Placing and cancelling are one call of the tenant's SQL function each: one statement, its own db
transaction, one row lock. It is committed when it returns; after an error nothing is done.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import selectinload

from app.api.bounded_scan import scan
from app.api.pagination import Found, PageRequest
from app.db import db
from app.ledger.rehearsal import rehearsed_row
from app.metrics.observations import observed_posting
from app.orders.errors import OrderNotFound
from app.orders.models import Order, PostedItem, PostedOrder
from app.sql_refusals import named_refusals
from app.wallets.service import with_own_wallet
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
    user_id: UUID,
    currency: str,
    items: Sequence[tuple[UUID, int]],
    *,
    idempotency_key: str,
    is_dry_run: bool = False,
) -> tuple[PostedOrder, bool]:
    """Order products in these quantities and pay them from the member's wallet in the currency, at the catalogue's
    current prices. A missing wallet is opened before. Returns the order, and whether an earlier request placed it. A
    dry run writes nothing.

    Locks the wallet's row. Raises OrderEmpty, TooManyItems, QuantityOutOfRange, ProductNotFound, ProductWithdrawn,
    ProductWithoutPrice, WalletNotFound, WalletFrozen, WalletClosed, InsufficientFunds, IdempotencyKeyReused,
    AmountOutOfRange.
    """
    asked = json.dumps([[str(product_id), quantity] for product_id, quantity in items])
    parameters = (user_id, currency, asked, idempotency_key)
    if is_dry_run:
        return _order(rehearsed_row(_PLACE, parameters, opens=(user_id, currency)))
    return observed_posting(
        "payment",
        lambda: _order(with_own_wallet(user_id, currency, lambda: _row(_PLACE, parameters))),
        attrgetter("total_minor"),
    )


def cancel(
    user_id: UUID, order_id: UUID, *, idempotency_key: str, is_dry_run: bool = False
) -> tuple[PostedOrder, bool]:
    """Cancel the member's order and refund the amount of its payment not yet refunded. Returns the order, and whether
    it was cancelled before; the answer is the same. A dry run writes nothing.

    Locks the wallet's row. Raises OrderNotFound, also for another member's order, WalletClosed, IdempotencyKeyReused.
    """
    parameters = (user_id, order_id, idempotency_key)
    if is_dry_run:
        return _order(rehearsed_row(_CANCEL, parameters))
    return observed_posting(
        "refund", lambda: _order(_row(_CANCEL, parameters)), lambda order: order.refunded_minor or 0
    )


def list_orders(
    page: PageRequest,
    *,
    user_id: UUID | None = None,
    wallet_id: UUID | None = None,
    status: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> Found[Order]:
    """The tenant's orders, or those of a member or wallet, with their items, newest first; a position is (created_at,
    id). `start` is inclusive, `end` is exclusive.
    """
    query = sa.select(Order)
    if user_id is not None:
        query = query.where(Order.user_id == user_id)
    filters: list[sa.ColumnElement[bool]] = []
    if status == "cancelled" and user_id is None:  # It has an index.
        query = query.where(Order.status == sa.literal_column("'cancelled'"))
    elif status is not None:
        filters.append(Order.status == status)
    if wallet_id is not None:
        filters.append(Order.wallet_id == wallet_id)
    items = (selectinload(Order.items),)
    return scan(page, query, (Order.created_at, Order.id), filters, options=items, start=start, end=end)


def get_order(order_id: UUID, *, user_id: UUID | None = None) -> Order:
    """One order of the tenant, or of the member, with its items. Raises OrderNotFound."""
    query = sa.select(Order).where(Order.id == order_id).options(selectinload(Order.items))
    if user_id is not None:
        query = query.where(Order.user_id == user_id)
    found = db.session.scalar(query)
    if found is None:
        raise OrderNotFound(OrderNotFound.text if user_id is not None else "There is no such order here.")
    return found


def _row(statement: str, parameters: tuple[Any, ...]) -> Sequence[Any]:
    engine = connections().engine(current_tenant())
    with named_refusals():
        # After a broken connection, the same idempotency key makes the second try safe.
        return engine.one_statement(statement, parameters, retry=True)[0]


def _order(row: Sequence[Any]) -> tuple[PostedOrder, bool]:
    *columns, listed, balance_after_minor, refunded_minor, replayed = row
    shown = dict(zip(_SHOWN, columns, strict=True))
    items = tuple(_item(item, shown["currency"]) for item in listed)
    order = PostedOrder(**shown, items=items, balance_after_minor=balance_after_minor, refunded_minor=refunded_minor)
    return order, replayed


def _item(listed: dict[str, Any], currency: str) -> PostedItem:
    return PostedItem(**listed | {"product_id": UUID(listed["product_id"]), "currency": currency})
