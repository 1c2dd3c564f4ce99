"""GET /api/admin/wallets: one tenant's wallets for its staff, and all tenants' wallets for operators.

The route is on the blueprint of wallets: its endpoint is part of every cursor, and its tag is part of OpenAPI.
"""

from typing import Any

from app.api.pagination import Page, cursor_to, paginate, position_in, with_total
from app.auth.access import Access, access, actor
from app.auth.second_factor.demand import may_enter
from app.errors import Invalid
from app.operators.schemas import WalletListQuery, WalletListSchema
from app.operators.wallets import AllTenantsWalletsPage, list_all_tenants_wallets
from app.wallets.models import MemberWallet
from app.wallets.routes import blueprint
from app.wallets.service import count_wallets
from app.wallets.service import list_wallets as list_tenant_wallets
from tenant_schemas.context import SHARED, current_binding


@blueprint.get("/admin/wallets")
@access(Access.READER, across_tenants=True)
@blueprint.arguments(WalletListQuery, location="query")
@blueprint.response(200, WalletListSchema)
def list_wallets(query: dict[str, Any]) -> Page[MemberWallet] | AllTenantsWalletsPage:
    """This tenant's wallets, oldest first. For an operator who names no tenant: the wallets of all active tenants, by
    slug. Those are unavailable that demand a second factor, if the session has none.
    """
    filters = {name: query.get(name) for name in ("q", "status", "currency", "user_id")}
    if current_binding() is SHARED:
        _refuse_in_all_tenants(query)
        found = list_all_tenants_wallets(
            after=position_in(query), limit=query["limit"], actor=actor(), may_enter=may_enter, **filters
        )
        next_cursor = cursor_to(found.position, query) if found.position else None
        return AllTenantsWalletsPage(found.items, found.unavailable, next_cursor)
    is_newest_first = query["sort"] == "-openedAt"
    page = paginate(
        query,
        lambda after, limit: list_tenant_wallets(after=after, limit=limit, is_newest_first=is_newest_first, **filters),
        lambda item: [item.opened_at, item.id],
    )
    return with_total(page, query, lambda most: count_wallets(most, **filters))


def _refuse_in_all_tenants(query: dict[str, Any]) -> None:
    for name, default in (("count", False), ("sort", "openedAt")):
        if query[name] != default:
            raise Invalid.at(
                name, "tenant_needed", "Name a tenant: the list of all tenants has one order and no total."
            )
