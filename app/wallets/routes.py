"""A member's own wallet, and the admin's view of all wallets of the tenant."""

from typing import Any
from uuid import UUID

from flask import g

from app.http import Blueprint, etag, if_match_version, wants_header
from app.money import to_minor
from app.pagination import Page, paginate
from app.tenancy import Access, access, caller
from app.wallets import service
from app.wallets.currencies import CurrencyQuery, chosen_currency
from app.wallets.models import MemberWallet, Wallet
from app.wallets.schemas import (
    ConfigureWalletSchema,
    MemberWalletPageSchema,
    OpenWalletSchema,
    WalletListQuery,
    WalletSchema,
)

blueprint = Blueprint("wallets", __name__, url_prefix="/api", description="A balance held by one member.")


@blueprint.get("/wallet")
@access(Access.MEMBER)
@blueprint.arguments(CurrencyQuery, location="query")
@blueprint.response(200, WalletSchema)
def show_own_wallet(query: dict[str, Any]) -> Wallet:
    """My wallet in the tenant of this request, opened at the first look. There is one for each currency."""
    return service.own_wallet(caller().user_id, chosen_currency(query))


@blueprint.get("/admin/wallets")
@access(Access.ADMIN)
@blueprint.arguments(WalletListQuery, location="query")
@blueprint.response(200, MemberWalletPageSchema)
def list_wallets(query: dict[str, Any]) -> Page[MemberWallet]:
    """This tenant's wallets, oldest first."""
    filters = {name: query.get(name) for name in ("q", "status")}
    return paginate(
        query,
        lambda after, limit: service.list_wallets(after=after, limit=limit, **filters),
        lambda item: [item.opened_at, item.id],
    )


@blueprint.post("/admin/wallets")
@access(Access.ADMIN)
@blueprint.arguments(OpenWalletSchema)
@blueprint.response(201, WalletSchema)
@blueprint.alt_response(200, schema=WalletSchema)
def open_wallet(body: dict[str, Any]) -> tuple[Wallet, int, dict[str, str]]:
    """Open a member's wallet: 201, or 200 with the wallet that is there."""
    wallet, opened = service.open_wallet(
        body["user_id"], chosen_currency(body), actor_id=caller().user_id, request_id=g.request_id
    )
    return wallet, 201 if opened else 200, etag(wallet.version)


@blueprint.get("/admin/wallets/<uuid:wallet_id>")
@access(Access.ADMIN)
@blueprint.response(200, WalletSchema)
def show_wallet(wallet_id: UUID) -> tuple[Wallet, int, dict[str, str]]:
    """One wallet. Its ETag is the version of its limit and status; money moving does not change it."""
    wallet = service.get_wallet(wallet_id)
    return wallet, 200, etag(wallet.version)


@blueprint.patch("/admin/wallets/<uuid:wallet_id>")
@access(Access.ADMIN)
@wants_header("If-Match", "The ETag of the version you have seen.")
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
        actor_id=caller().user_id,
        credit_limit_minor=None if limit is None else to_minor(limit, currency, "creditLimit"),
        status=body.get("status"),
        request_id=g.request_id,
    )
    return wallet, 200, etag(wallet.version)
