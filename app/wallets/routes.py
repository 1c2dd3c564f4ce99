"""A member's own wallet, and single wallets of the tenant for its staff."""

from typing import Any
from uuid import UUID

from app.api.blueprint import Blueprint
from app.api.headers import etag, gives_etag, gives_location, if_match_version, needs_version
from app.api.links import location
from app.api.refusals import refuses
from app.audit.service import add_entry
from app.auth.access import Access, access, actor, caller
from app.money import to_minor
from app.users.errors import MemberNotFound
from app.wallets import service
from app.wallets.currencies import CurrencyQuery, chosen_currency
from app.wallets.errors import (
    CreditLimitAbovePolicy,
    CreditLimitBelowUsed,
    WalletClosed,
    WalletNotEmpty,
    WalletNotFound,
)
from app.wallets.models import Wallet
from app.wallets.schemas import ConfigureWalletSchema, OpenWalletSchema, WalletSchema

blueprint = Blueprint("wallets", __name__, url_prefix="/api", description="A balance held by one member.")


@blueprint.get("/wallet")
@access(Access.MEMBER)
@blueprint.arguments(CurrencyQuery, location="query")
@blueprint.response(200, WalletSchema)
@refuses(MemberNotFound)
def show_own_wallet(query: dict[str, Any]) -> Wallet:
    """My wallet in the tenant of this request, one for each currency. The first request opens it."""
    return service.own_wallet(caller().user_id, chosen_currency(query))


@blueprint.post("/admin/wallets")
@access(Access.ADMIN, "wallet.open")
@gives_etag
@gives_location
@blueprint.arguments(OpenWalletSchema)
@blueprint.response(201, WalletSchema)
@blueprint.alt_response(200, schema=WalletSchema)
@refuses(MemberNotFound)
def open_wallet(body: dict[str, Any]) -> tuple[Wallet, int, dict[str, str]]:
    """Open a member's wallet: 201, or 200 if it exists."""
    wallet, opened = service.open_wallet(body["user_id"], chosen_currency(body), actor=actor())
    if opened and not wallet.credit_limit_minor:  # With a limit, the SQL function has written the entry.
        add_entry(actor(), "wallet.open", wallet_id=wallet.id, after={"creditLimitMinor": 0, "status": wallet.status})
    if not opened:
        return wallet, 200, etag(wallet.version)
    return wallet, 201, etag(wallet.version) | location("admin/wallets", wallet.id)


@blueprint.get("/admin/wallets/<uuid:wallet_id>")
@access(Access.READER)
@gives_etag
@blueprint.response(200, WalletSchema)
@refuses(WalletNotFound)
def show_wallet(wallet_id: UUID) -> tuple[Wallet, int, dict[str, str]]:
    """One wallet. Its ETag is the version of its limit and status; movements do not change it."""
    wallet = service.get_wallet(wallet_id)
    return wallet, 200, etag(wallet.version)


@blueprint.patch("/admin/wallets/<uuid:wallet_id>")
@access(Access.ADMIN, "wallet.configure")
@needs_version
@blueprint.arguments(ConfigureWalletSchema)
@blueprint.response(200, WalletSchema)
@refuses(WalletNotFound, WalletClosed, CreditLimitBelowUsed, CreditLimitAbovePolicy, WalletNotEmpty)
def configure_wallet(body: dict[str, Any], wallet_id: UUID) -> tuple[Wallet, int, dict[str, str]]:
    """Set the credit limit, freeze, unfreeze or close. Closing is final and needs a balance of zero."""
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
