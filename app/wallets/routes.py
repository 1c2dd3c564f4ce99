"""A member's own wallet, and single wallets of the tenant for its staff."""

from typing import Any
from uuid import UUID

from app.api.blueprint import Blueprint
from app.api.conditional import etag, if_match
from app.api.headers import conditional, gives_etag, gives_location, needs_version
from app.api.links import location
from app.api.pagination import Page
from app.api.refusals import refuses
from app.audit.service import add_entry
from app.auth.access import Access, access, actor, caller
from app.money import to_minor
from app.users.errors import MemberNotFound
from app.wallets import service
from app.wallets.currencies import CurrencyQuery, chosen_currency
from app.wallets.errors import (
    AmountOutOfRange,
    CreditLimitAbovePolicy,
    CreditLimitBelowUsed,
    WalletClosed,
    WalletNotEmpty,
    WalletNotFound,
)
from app.wallets.models import MemberWallet, Wallet
from app.wallets.schemas import (
    ConfigureWalletSchema,
    MemberWalletSchema,
    OpenWalletSchema,
    WalletPageSchema,
    WalletSchema,
)

blueprint = Blueprint("wallets", __name__, url_prefix="/api", description="A balance held by one member.")


@blueprint.get("/wallet")
@access(Access.MEMBER)
@blueprint.arguments(CurrencyQuery, location="query")
@blueprint.response(200, WalletSchema)
@conditional
def show_own_wallet(query: dict[str, Any]) -> tuple[Wallet, dict[str, str]]:
    """My wallet in the tenant of this request, one for each currency. `openedAt` is null until its first movement opens
    it.
    """
    wallet = service.own_wallet(caller().user_id, chosen_currency(query))
    return wallet, etag(wallet.version)


@blueprint.get("/wallets")
@access(Access.MEMBER)
@blueprint.response(200, WalletPageSchema)
def list_own_wallets() -> Page[Wallet]:
    """My opened wallets in the tenant of this request, by currency: all of them on one page."""
    return Page(service.list_own_wallets(caller().user_id), None)


@blueprint.post("/admin/wallets")
@access(Access.ADMIN, "wallet.open")
@gives_etag
@gives_location
@blueprint.arguments(OpenWalletSchema)
@blueprint.response(201, MemberWalletSchema)
@blueprint.alt_response(200, schema=MemberWalletSchema)
@refuses(MemberNotFound)
def open_wallet(body: dict[str, Any]) -> tuple[MemberWallet, int, dict[str, str]]:
    """Open a member's wallet: 201, or 200 if it exists."""
    wallet, opened = service.open_wallet(body["user_id"], chosen_currency(body, "body"), actor=actor())
    if opened and not wallet.credit_limit_minor:  # With a limit, the SQL function has written the entry.
        add_entry(actor(), "wallet.open", wallet_id=wallet.id, after={"creditLimitMinor": 0, "status": wallet.status})
    shown = service.get_member_wallet(wallet.id)
    if not opened:
        return shown, 200, etag(wallet.version)
    return shown, 201, etag(wallet.version) | location("admin/wallets", wallet.id)


@blueprint.get("/admin/wallets/<uuid:wallet_id>")
@access(Access.READER)
@blueprint.response(200, MemberWalletSchema)
@conditional
@refuses(WalletNotFound)
def show_wallet(wallet_id: UUID) -> tuple[MemberWallet, dict[str, str]]:
    """One wallet. `version` counts the changes of its limit and status; movements change the ETag only."""
    wallet = service.get_member_wallet(wallet_id)
    return wallet, etag(wallet.version)


@blueprint.patch("/admin/wallets/<uuid:wallet_id>")
@access(Access.ADMIN, "wallet.configure")
@needs_version
@blueprint.arguments(ConfigureWalletSchema)
@blueprint.response(200, MemberWalletSchema)
@refuses(WalletNotFound, WalletClosed, CreditLimitBelowUsed, CreditLimitAbovePolicy, WalletNotEmpty, AmountOutOfRange)
def configure_wallet(body: dict[str, Any], wallet_id: UUID) -> tuple[MemberWallet, int, dict[str, str]]:
    """Set the credit limit, freeze, unfreeze or close. Closing is final and needs a balance of zero."""
    version = if_match().version(lambda: service.get_wallet(wallet_id).version)
    limit = body.get("credit_limit")
    currency = service.get_wallet(wallet_id).currency
    wallet = service.configure_wallet(
        wallet_id,
        version=version,
        actor=actor(),
        credit_limit_minor=None if limit is None else to_minor(limit, currency, "creditLimit"),
        status=body.get("status"),
    )
    return service.get_member_wallet(wallet_id), 200, etag(wallet.version)
