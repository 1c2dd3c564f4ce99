"""Reads the products on sale. It writes and locks nothing."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.catalogue.errors import ProductNotFound
from app.catalogue.models import Category, PricedProduct, Product, ProductPrice
from app.db import db


def list_products(
    currency: str, *, after: list[Any] | None, limit: int, category: str | None = None, q: str | None = None
) -> list[PricedProduct]:
    """The products on sale in this currency, by sku; `after` is (sku,). `category` is a category's code.

    Withdrawn products, and products without a price in the currency, are not on sale.
    """
    query = _on_sale(currency).order_by(Product.sku).limit(limit)
    if after is not None:
        query = query.where(Product.sku > after[0])
    if category is not None:
        query = query.where(Category.code == category)
    if q is not None:
        query = query.where(Product.name.icontains(q, autoescape=True) | Product.sku.icontains(q, autoescape=True))
    return [PricedProduct(*row) for row in db.session.execute(query)]


def get_product(product_id: UUID, currency: str) -> PricedProduct:
    """One product on sale in this currency. Raises ProductNotFound."""
    row = db.session.execute(_on_sale(currency).where(Product.id == product_id)).one_or_none()
    if row is None:
        raise ProductNotFound("There is no such product on sale in this currency.")
    return PricedProduct(*row)


def _on_sale(currency: str) -> sa.Select[UUID, str, str, str | None, str, str, str, int]:
    return (
        sa.select(
            Product.id,
            Product.sku,
            Product.name,
            Product.description,
            Category.code,
            Category.name,
            ProductPrice.currency,
            ProductPrice.price_minor,
        )
        .join(Category, Category.id == Product.category_id)
        .join(ProductPrice, sa.and_(ProductPrice.product_id == Product.id, ProductPrice.currency == currency))
        .where(Product.status == "active")
    )
