"""The products that a member can buy in the tenant of the request."""

from typing import Any
from uuid import UUID

from app.api.blueprint import Blueprint
from app.api.conditional import REVALIDATED
from app.api.headers import conditional, gives_vary
from app.api.pagination import Page, paginate
from app.api.refusals import refuses
from app.auth.access import Access, access
from app.catalogue import service
from app.catalogue.errors import ProductNotFound
from app.catalogue.models import PricedProduct
from app.catalogue.schemas import ProductListQuery, ProductPageSchema, ProductSchema
from app.wallets.currencies import CurrencyQuery, chosen_currency

blueprint = Blueprint("catalog", __name__, url_prefix="/api/products", description="What there is to buy.")


@blueprint.get("")
@access(Access.MEMBER)
@blueprint.arguments(ProductListQuery, location="query")
@blueprint.response(200, ProductPageSchema)
@conditional
@gives_vary
def list_products(query: dict[str, Any]) -> tuple[Page[PricedProduct], dict[str, str]]:
    """The products on sale in one of the tenant's currencies, by sku."""
    filters = {name: query.get(name) for name in ("category", "q")}
    currency = chosen_currency(query)
    found = paginate(
        query,
        lambda after, limit: service.list_products(currency, after=after, limit=limit, **filters),
        lambda item: [item.sku],
    )
    return found, REVALIDATED


@blueprint.get("/<uuid:product_id>")
@access(Access.MEMBER)
@blueprint.arguments(CurrencyQuery, location="query")
@blueprint.response(200, ProductSchema)
@conditional
@gives_vary
@refuses(ProductNotFound)
def show_product(query: dict[str, Any], product_id: UUID) -> tuple[PricedProduct, dict[str, str]]:
    """One product on sale, with its price in one of the tenant's currencies."""
    return service.get_product(product_id, chosen_currency(query)), REVALIDATED
