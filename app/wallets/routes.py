"""A member's own wallet, and the admin's view of all wallets of the tenant."""

from typing import Any
from uuid import UUID

from app.api.pagination import Page, cursor_to, paginate, position_in
from app.api.requests import Blueprint, etag, gives_etag, if_match_version, needs_version
from app.audit.service import note
from app.money import to_minor
from app.operators.wallets import EveryonesPage, list_everyones
from app.tenancy import Access, access, actor, caller
from app.wallets import service
from app.wallets.currencies import CurrencyQuery, chosen_currency
from app.wallets.models import MemberWallet, Wallet
from app.wallets.schemas import (
    ConfigureWalletSchema,
    OpenWalletSchema,
    WalletListQuery,
    WalletListSchema,
    WalletSchema,
)
from tenant_schemas.context import SHARED, current_binding

blueprint = Blueprint("wallets", __name__, url_prefix="/api", description="A balance held by one member.")


@blueprint.get("/wallet")
@access(Access.MEMBER)
@blueprint.arguments(CurrencyQuery, location="query")
@blueprint.response(200, WalletSchema)
def show_own_wallet(query: dict[str, Any]) -> Wallet:
    """My wallet in the tenant of this request, opened at the first look. There is one for each currency."""
    return service.own_wallet(caller().user_id, chosen_currency(query))


@blueprint.get("/admin/wallets")
@access(Access.READER, across_tenants=True)
@blueprint.arguments(WalletListQuery, location="query")
@blueprint.response(200, WalletListSchema)
def list_wallets(query: dict[str, Any]) -> Page[MemberWallet] | EveryonesPage:
    """This tenant's wallets, oldest first. To an operator who names no tenant: those of all active tenants, by slug."""
    filters = {name: query.get(name) for name in ("q", "status")}
    if current_binding() is SHARED:
        found = list_everyones(after=position_in(query), limit=query["limit"], actor=actor(), **filters)
        next_cursor = cursor_to(found.position, query) if found.position else None
        return EveryonesPage(found.items, found.unavailable, next_cursor)
    return paginate(
        query,
        lambda after, limit: service.list_wallets(after=after, limit=limit, **filters),
        lambda item: [item.opened_at, item.id],
    )


@blueprint.post("/admin/wallets")
@access(Access.ADMIN, "wallet.open")
@gives_etag
@blueprint.arguments(OpenWalletSchema)
@blueprint.response(201, WalletSchema)
@blueprint.alt_response(200, schema=WalletSchema)
def open_wallet(body: dict[str, Any]) -> tuple[Wallet, int, dict[str, str]]:
    """Open a member's wallet: 201, or 200 with the wallet that is there."""
    wallet, opened = service.open_wallet(body["user_id"], chosen_currency(body), actor=actor())
    if opened and not wallet.credit_limit_minor:  # With a limit, the tenant's own function has noted it.
        note(actor(), "wallet.open", wallet_id=wallet.id, after={"creditLimitMinor": 0, "status": wallet.status})
    return wallet, 201 if opened else 200, etag(wallet.version)


@blueprint.get("/admin/wallets/<uuid:wallet_id>")
@access(Access.READER)
@gives_etag
@blueprint.response(200, WalletSchema)
def show_wallet(wallet_id: UUID) -> tuple[Wallet, int, dict[str, str]]:
    """One wallet. Its ETag is the version of its limit and status; money moving does not change it."""
    wallet = service.get_wallet(wallet_id)
    return wallet, 200, etag(wallet.version)


@blueprint.patch("/admin/wallets/<uuid:wallet_id>")
@access(Access.ADMIN, "wallet.configure")
@needs_version
@blueprint.arguments(ConfigureWalletSchema)
@blueprint.response(200, WalletSchema)
def configure_wallet(body: dict[str, Any], wallet_id: UUID) -> tuple[Wallet, int, dict[str, str]]:
    """Set the credit limit, freeze, thaw or close. Closing is final and needs a zero balance."""
    version = if_match_version()
    limit = body.get("credit_limit")
    currency = service.get_wallet(wallet_id).currency
    wallet = service.configure_wallet(
        wallet_id,
        version=version,
        actor=actor(),
        credit_limit_minor=None if limit is None else to_minor(limit, currency, "creditLimit"),
        status=body.get("status"),
    )
    return wallet, 200, etag(wallet.version)
