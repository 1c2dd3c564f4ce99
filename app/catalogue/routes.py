"""The products that a member can buy in the tenant of the request."""

from typing import Any

from app.api.blueprint import Blueprint
from app.api.conditional import REVALIDATED
from app.api.headers import conditional
from app.api.pagination import Page, paginate
from app.auth.access import Access, access
from app.catalogue import service
from app.catalogue.models import PricedProduct
from app.catalogue.schemas import ProductListQuery, ProductPageSchema
from app.wallets.currencies import chosen_currency

blueprint = Blueprint("catalog", __name__, url_prefix="/api/products", description="What there is to buy.")


@blueprint.get("")
@access(Access.MEMBER)
@blueprint.arguments(ProductListQuery, location="query")
@blueprint.response(200, ProductPageSchema)
@conditional
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
