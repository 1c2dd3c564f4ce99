"""The tenant's credit policy, the history of limits, and the ageing report, for staff."""

from typing import Any
from uuid import UUID

from app.api.blueprint import Blueprint
from app.api.pagination import Page, PageQuery, paginate
from app.api.refusals import refuses
from app.auth.access import Access, access, actor
from app.credit import service
from app.credit.models import CreditPolicy, CreditTotals, LimitChange, PolicyChange, WalletCredit
from app.credit.schemas import (
    CreditTotalsPageSchema,
    LimitChangePageSchema,
    PolicyChangePageSchema,
    PolicyPageSchema,
    PolicySchema,
    SetPolicySchema,
    WalletCreditPageSchema,
)
from app.money import to_minor
from app.wallets.currencies import chosen_currency
from app.wallets.errors import WalletNotFound
from app.wallets.service import get_wallet

blueprint = Blueprint("credit", __name__, url_prefix="/api/admin", description="Credit granted and used.")


@blueprint.get("/credit-policies")
@access(Access.READER)
@blueprint.response(200, PolicyPageSchema)
def list_credit_policies() -> Page[CreditPolicy]:
    """The policy of each of this tenant's currencies, on one page."""
    return Page(service.list_policies(), None)


@blueprint.put("/credit-policies/<currency>")
@access(Access.ADMIN, "credit_policy.set")
@blueprint.arguments(SetPolicySchema)
@blueprint.response(200, PolicySchema)
def set_credit_policy(body: dict[str, Any], currency: str) -> CreditPolicy:
    """Set the limit of new wallets and the maximum of raised limits. Existing wallets do not change."""
    currency = chosen_currency({"currency": currency})
    ceiling = body["max_limit"]
    return service.set_policy(
        currency,
        default_limit_minor=to_minor(body["default_limit"], currency, "defaultLimit"),
        max_limit_minor=None if ceiling is None else to_minor(ceiling, currency, "maxLimit"),
        actor=actor(),
    )


@blueprint.get("/credit-policy-changes")
@access(Access.READER)
@blueprint.arguments(PageQuery, location="query")
@blueprint.response(200, PolicyChangePageSchema)
def list_credit_policy_changes(query: dict[str, Any]) -> Page[PolicyChange]:
    """Changes of the policy with actor, before and after, newest first."""
    return paginate(
        query,
        lambda after, limit: service.list_policy_changes(after=after, limit=limit),
        lambda item: [item.at, item.id],
    )


@blueprint.get("/wallets/<uuid:wallet_id>/credit-limits")
@access(Access.READER)
@blueprint.arguments(PageQuery, location="query")
@blueprint.response(200, LimitChangePageSchema)
@refuses(WalletNotFound)
def list_credit_limit_changes(query: dict[str, Any], wallet_id: UUID) -> Page[LimitChange]:
    """Changes of a wallet's credit limit with actor, before and after, newest first."""
    get_wallet(wallet_id)
    return paginate(
        query,
        lambda after, limit: service.list_limit_changes(wallet_id, after=after, limit=limit),
        lambda item: [item.at, item.id],
    )


@blueprint.get("/credit-report")
@access(Access.READER)
@blueprint.response(200, CreditTotalsPageSchema)
def show_credit_report() -> Page[CreditTotals]:
    """Used credit and its age, by currency, on one page. A repayment settles the oldest credit first."""
    return Page(service.credit_totals(), None)


@blueprint.get("/credit-report/wallets")
@access(Access.READER)
@blueprint.arguments(PageQuery, location="query")
@blueprint.response(200, WalletCreditPageSchema)
def list_credit_in_use(query: dict[str, Any]) -> Page[WalletCredit]:
    """The wallets that use credit, with its age and their members."""
    return paginate(
        query,
        lambda after, limit: service.list_credit_in_use(after=after, limit=limit),
        lambda item: [item.wallet_id],
    )
