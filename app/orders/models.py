"""The tables of orders. Only SQL functions write them; the only change of an order is its cancellation."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db import TenantModel


class Order(TenantModel):
    """A member's order, paid from the wallet when it was placed."""

    __tablename__ = "orders"
    __table_args__ = (
        sa.UniqueConstraint("wallet_id", "idempotency_key", name="orders_wallet_id_idempotency_key_key"),
        sa.UniqueConstraint("wallet_id", "cancel_key", name="orders_wallet_id_cancel_key_key"),
        sa.UniqueConstraint("payment_id", name="orders_payment_id_key"),
        sa.ForeignKeyConstraint(
            ["wallet_id", "currency"], ["wallets.id", "wallets.currency"], name="orders_wallet_fkey"
        ),
        sa.Index("orders_user_id_created_at_idx", "user_id", "created_at", "id"),
        sa.Index("orders_created_at_id_idx", "created_at", "id"),
        sa.Index(
            "orders_cancelled_created_at_id_idx",
            *("created_at", "id"),
            postgresql_where=sa.text("status = 'cancelled'"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID]
    wallet_id: Mapped[UUID]
    currency: Mapped[str] = mapped_column(sa.Text)
    status: Mapped[str] = mapped_column(sa.Text)
    total_minor: Mapped[int] = mapped_column(sa.BigInteger)
    idempotency_key: Mapped[str] = mapped_column(sa.Text)
    request_fingerprint: Mapped[bytes]
    payment_id: Mapped[UUID] = mapped_column(sa.ForeignKey("wallet_transactions.id", name="orders_payment_id_fkey"))
    refund_id: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey("wallet_transactions.id", name="orders_refund_id_fkey")
    )
    cancel_key: Mapped[str | None] = mapped_column(sa.Text)
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    cancelled_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))

    items: Mapped[list["OrderItem"]] = relationship(order_by="OrderItem.item_no", lazy="raise", viewonly=True)


class OrderItem(TenantModel):
    """A line of an order, with name and price at the moment of the order."""

    __tablename__ = "order_items"

    order_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey("orders.id", name="order_items_order_id_fkey"), primary_key=True
    )
    item_no: Mapped[int] = mapped_column(sa.SmallInteger, primary_key=True)
    product_id: Mapped[UUID]
    sku: Mapped[str] = mapped_column(sa.Text)
    name: Mapped[str] = mapped_column(sa.Text)
    quantity: Mapped[int]
    unit_price_minor: Mapped[int] = mapped_column(sa.BigInteger)
    line_total_minor: Mapped[int] = mapped_column(sa.BigInteger)

    # An item is loaded with its order, so the session has the order and no query runs.
    order: Mapped[Order] = relationship(lazy="raise_on_sql", viewonly=True)

    @property
    def currency(self) -> str:
        return self.order.currency


@dataclass(frozen=True, slots=True)
class PostedItem:
    """A line of an order as its SQL function returned it, without a session."""

    currency: str
    item_no: int
    product_id: UUID
    sku: str
    name: str
    quantity: int
    unit_price_minor: int
    line_total_minor: int


@dataclass(frozen=True, slots=True)
class PostedOrder:
    """An order as the SQL function that placed or cancelled it returned it: the public columns, its items, the balance
    after its payment or refund, and the refunded amount.
    """

    id: UUID
    user_id: UUID
    wallet_id: UUID
    currency: str
    status: str
    total_minor: int
    payment_id: UUID
    refund_id: UUID | None
    created_at: datetime
    cancelled_at: datetime | None
    items: tuple[PostedItem, ...]
    balance_after_minor: int | None
    refunded_minor: int | None = None
