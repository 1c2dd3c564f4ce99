"""Lists the products on sale. It writes and locks nothing."""

from typing import Any

import sqlalchemy as sa

from app.catalogue.models import Category, PricedProduct, Product, ProductPrice
from app.db import db


def list_products(
    currency: str, *, after: list[Any] | None, limit: int, category: str | None = None, q: str | None = None
) -> list[PricedProduct]:
    """The products on sale in this currency, by sku; `after` is (sku,). `category` is a category's code.

    Withdrawn products, and products without a price in the currency, are not on sale.
    """
    query = (
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
        .order_by(Product.sku)
        .limit(limit)
    )
    if after is not None:
        query = query.where(Product.sku > after[0])
    if category is not None:
        query = query.where(Category.code == category)
    if q is not None:
        query = query.where(Product.name.icontains(q, autoescape=True) | Product.sku.icontains(q, autoescape=True))
    return [PricedProduct(*row) for row in db.session.execute(query)]
