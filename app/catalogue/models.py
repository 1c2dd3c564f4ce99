"""The catalogue's tables (shared schema). The service only reads them; `scripts.load_catalogue` writes them."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db import SharedModel
from tenant_schemas.tenant import SHARED_SCHEMA


class Category(SharedModel):
    """A group of products. Files and people name it by `code`."""

    __tablename__ = "categories"
    __table_args__ = (sa.UniqueConstraint("code", name="categories_code_key"), {"schema": SHARED_SCHEMA})

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=sa.func.gen_random_uuid())
    code: Mapped[str] = mapped_column(sa.Text)
    name: Mapped[str] = mapped_column(sa.Text)
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())


class Product(SharedModel):
    """A product, in all tenants. Products are withdrawn, never deleted."""

    __tablename__ = "products"
    __table_args__ = (
        sa.UniqueConstraint("sku", name="products_sku_key"),
        sa.Index("products_category_id_sku_idx", "category_id", "sku"),
        {"schema": SHARED_SCHEMA},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=sa.func.gen_random_uuid())
    category_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey("shared.categories.id", name="products_category_id_fkey"),
    )
    sku: Mapped[str] = mapped_column(sa.Text)
    name: Mapped[str] = mapped_column(sa.Text)
    description: Mapped[str | None] = mapped_column(sa.Text)
    status: Mapped[str] = mapped_column(sa.Text, server_default="active")
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())


class ProductPrice(SharedModel):
    """The price of a product in one currency, in minor units. Without a row the product is not sold in that
    currency.
    """

    __tablename__ = "product_prices"
    __table_args__ = ({"schema": SHARED_SCHEMA},)

    product_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey("shared.products.id", name="product_prices_product_id_fkey"), primary_key=True
    )
    currency: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    price_minor: Mapped[int] = mapped_column(sa.BigInteger)


@dataclass(frozen=True, slots=True)
class PricedProduct:
    """A product on sale in one currency."""

    id: UUID
    sku: str
    name: str
    description: str | None
    category_code: str
    category_name: str
    currency: str
    price_minor: int
