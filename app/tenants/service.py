"""The verbs of an operator: list, show and configure tenants. They work on the shared side and read totals in each
tenant.

Totals are read after the registry, so a tenant that changes in between shows its old row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import psycopg
import sqlalchemy as sa
import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.api.conditional import IfMatch
from app.api.pagination import Position
from app.api.spelling import camel_case
from app.audit.service import commit_entry
from app.auth.actors import Actor
from app.db import db
from app.errors import Invalid
from app.limits import limits_of
from app.tenancy import OLDEST_TENANT_REVISION
from app.tenant_settings import changed_settings, locale_name_of, stored_settings
from app.tenants.fan_out import Budget, Unreadable, read_as
from app.users.service import shown_currencies
from app.wallets.models import Wallet
from tenant_schemas import registry
from tenant_schemas.context import current_tenant
from tenant_schemas.errors import SchemaBehind, TenancyError, TenantNotFound
from tenant_schemas.flask import connections
from tenant_schemas.registry import COLUMNS, tenant_from_row
from tenant_schemas.tenant import Tenant, TenantStatus, is_name

log = structlog.get_logger(__name__)

_SELECT: Final = f"SELECT {COLUMNS}, t.created_at, t.version FROM shared.tenants t"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums over a tenant's wallets of one currency, in minor units."""

    currency: str
    wallets: int
    deposit_balance_minor: int
    credit_used_minor: int
    held_minor: int


@dataclass(frozen=True, slots=True)
class TenantView:
    """A tenant in the operator's view. `totals` is None if the tenant can't be read now, or may not be."""

    tenant: Tenant
    created_at: datetime
    version: int
    totals: list[Totals] | None

    @property
    def currencies(self) -> list[str]:
        """The currencies of its members' wallets, the main one first."""
        settings = self.settings or {}
        return list(dict.fromkeys((*([settings["currency"]] if settings else ()), *settings.get("currencies", ()))))

    @property
    def settings(self) -> dict[str, Any] | None:
        """The checked settings; None if they are invalid, which only SQL by hand can cause."""
        try:
            return stored_settings(self.tenant.settings)
        except Invalid:
            return None


@dataclass(frozen=True, slots=True)
class OwnSettings:
    """A tenant's settings as they hold now, for its staff. `defaults` names those that the tenant has not set."""

    tenant: Tenant
    currencies: list[dict[str, Any]]
    locale: str
    limits: dict[str, Any]
    defaults: list[str]


@dataclass(slots=True)
class TenantList:
    """Tenants, and the position of the next page; None at the end."""

    items: list[TenantView] = field(default_factory=list)
    position: Position | None = None


def list_tenants(*, after: Position | None, limit: int, may_enter: Callable[[Tenant], bool]) -> TenantList:
    """Up to `limit` tenants of any status by slug, fewer if reading them takes long; `after` is (slug,). A tenant that
    `may_enter` denies is not read, and has no totals.
    """
    query = f"{_SELECT} WHERE t.slug > %s ORDER BY t.slug LIMIT %s"
    rows = connections().shared.one_statement(query, (after[0] if after else "", limit + 1), retry=True)
    found, budget = TenantList(), Budget()
    for row in rows:
        if len(found.items) == limit or not budget.allows_another():
            found.position = [found.items[-1].tenant.slug]
            break
        found.items.append(_view(row, may_enter))
    return found


def show_tenant(slug: str, *, refuse_entry: Callable[[Tenant], None]) -> TenantView:
    """The tenant with this slug. Raises TenantNotFound, and what `refuse_entry` raises before the tenant is read."""
    query = f"{_SELECT} WHERE t.slug = %s"
    rows = connections().shared.one_statement(query, (_checked(slug),), retry=True)
    if not rows:
        raise TenantNotFound("There is no such tenant.")
    *columns, _created_at, _version = rows[0]
    refuse_entry(tenant_from_row(columns))
    return _view(rows[0])


def own_settings() -> OwnSettings:
    """The bound tenant's settings. Raises TenantMisconfigured."""
    tenant, limits = current_tenant(), limits_of(current_tenant())
    unset = [name for name in ("locale", *limits) if name not in tenant.settings]
    locale = locale_name_of(tenant.settings)
    return OwnSettings(tenant, shown_currencies(tenant.settings), locale, limits, [camel_case(name) for name in unset])


def version_of(connection: sa.Connection, slug: str) -> int:
    """The version of the tenant's row in the registry."""
    found = connection.exec_driver_sql("SELECT version FROM shared.tenants WHERE slug = %s", (slug,)).scalar_one()
    return int(found)


def configure_tenant(
    slug: str,
    seen: IfMatch,
    *,
    name: str | None,
    status: TenantStatus | None,
    settings: Mapping[str, Any],
    actor: Actor,
    refuse_entry: Callable[[Tenant], None],
) -> None:
    """Change the given values from the tenant's next request on; None removes one of `settings`. `seen` has the
    versions that may be changed. `refuse_entry` raises if the operator may not enter the locked tenant.

    Locks the tenant's row, writes before and after into its audit log, and commits. Raises TenantNotFound,
    PreconditionFailed, Invalid, SchemaBehind, and what `refuse_entry` raises.
    """
    connection = db.session.connection()
    before = registry.lock_tenant(connection, registry.get_tenant(connection, _checked(slug)).id)
    refuse_entry(before)
    seen.refuse_others(version_of(connection, before.slug))
    if before.revision < OLDEST_TENANT_REVISION and status in {None, TenantStatus.ACTIVE}:
        raise SchemaBehind(
            "This tenant is being migrated: it can be suspended or archived now; make other changes afterwards."
        )
    if settings:
        registry.change_settings(connection, before.id, changed_settings(before.settings, settings))
    if name is not None:
        registry.set_name(connection, before.id, name)
    if status is not None:
        registry.set_status(connection, before.id, status)
    _note(actor, before, registry.get_tenant(connection, before.slug))
    db.session.commit()


def _note(actor: Actor, before: Tenant, after: Tenant) -> None:
    """Write the audit entry. A tenant can be stopped even if its log can't be written; then the service's log has the
    entry.
    """
    told = {"before": _state(before), "after": _state(after)}
    try:
        # Without its settings: a limit or an invalid setting must not keep an operator from correcting it.
        commit_entry(replace(before, settings={}), actor, "tenant.configure", **told)
    except (psycopg.Error, SQLAlchemyError, TenancyError) as error:
        if after.is_active:
            raise
        log.error(  # noqa: TRY400
            "audit_entry_lost", action="tenant.configure", tenant=before.slug, actor=actor.id, error=str(error), **told
        )


def _state(tenant: Tenant) -> dict[str, Any]:
    return {"name": tenant.name, "status": tenant.status, "settings": dict(tenant.settings)}


def _checked(slug: str) -> str:
    if not is_name(slug):  # No query for an impossible slug.
        raise TenantNotFound("There is no such tenant.")
    return slug


def _view(row: Any, may_enter: Callable[[Tenant], bool] = lambda _: True) -> TenantView:
    *columns, created_at, version = row
    tenant = tenant_from_row(columns)
    try:
        totals = read_as(tenant, _totals) if may_enter(tenant) else None
    except Unreadable:
        totals = None
    return TenantView(tenant, created_at, version, totals)


# `held_minor` includes expired holds until they are released; only wallets with holds need the subquery.
_HELD_NOW: Final = Wallet.held_minor - sa.case((Wallet.held_minor > 0, Wallet.over_minor.expression), else_=0)


def _totals() -> list[Totals]:
    sums = (sa.func.greatest(Wallet.balance_minor, 0), sa.func.greatest(-Wallet.balance_minor, 0), _HELD_NOW)
    query = (
        sa.select(Wallet.currency, sa.func.count(), *(sa.func.sum(each) for each in sums))
        .group_by(Wallet.currency)
        .order_by(Wallet.currency)
    )
    rows = db.session.execute(query)
    return [Totals(currency, count, *map(int, summed)) for currency, count, *summed in rows]
