"""The verbs of an operator: list, show and configure tenants. On the shared side; totals are read in each tenant.

What a tenant holds is read after the registry, so a tenant that was changed in between shows what it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import psycopg
import sqlalchemy as sa
import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.api.pagination import Position
from app.audit.service import note_in
from app.auth.actors import Actor
from app.db import db
from app.errors import Invalid
from app.tenancy import OLDEST_TENANT_REVISION
from app.tenant_settings import changed_settings, stored_settings
from app.tenants.fan_out import Budget, Unreadable, read_as
from app.wallets.models import Wallet
from tenant_schemas import registry
from tenant_schemas.errors import SchemaBehind, TenancyError, TenantNotFound
from tenant_schemas.flask import connections
from tenant_schemas.registry import COLUMNS, tenant_from_row
from tenant_schemas.tenant import Tenant, TenantStatus, is_name

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Totals:
    """What a tenant's wallets of one currency hold together, in minor units."""

    currency: str
    wallets: int
    deposit_balance_minor: int
    credit_used_minor: int
    held_minor: int


@dataclass(frozen=True, slots=True)
class TenantView:
    """A tenant as its operators see it. There are no totals of a tenant that can't be read now."""

    tenant: Tenant
    created_at: datetime
    totals: list[Totals] | None

    @property
    def currencies(self) -> list[str]:
        """In which its members may have wallets, the main one first."""
        settings = self.settings or {}
        return list(dict.fromkeys((*([settings["currency"]] if settings else ()), *settings.get("currencies", ()))))

    @property
    def settings(self) -> dict[str, Any] | None:
        """None if they are wrong, which only SQL by hand can bring about."""
        try:
            return stored_settings(self.tenant.settings)
        except Invalid:
            return None


@dataclass(slots=True)
class TenantList:
    """Some tenants; `position` is where to go on, None at the end."""

    items: list[TenantView] = field(default_factory=list)
    position: Position | None = None


def list_tenants(*, after: Position | None, limit: int) -> TenantList:
    """Up to `limit` tenants of any status by slug, fewer if reading them takes long; `after` is (slug,)."""
    query = f"SELECT {COLUMNS}, t.created_at FROM shared.tenants t WHERE t.slug > %s ORDER BY t.slug LIMIT %s"  # noqa: S608
    rows = connections().shared.one_statement(query, (after[0] if after else "", limit + 1), retry=True)
    found, budget = TenantList(), Budget()
    for row in rows:
        if len(found.items) == limit or not budget.allows_another():
            found.position = [found.items[-1].tenant.slug]
            break
        found.items.append(_view(row))
    return found


def show_tenant(slug: str) -> TenantView:
    """Raises TenantNotFound."""
    query = f"SELECT {COLUMNS}, t.created_at FROM shared.tenants t WHERE t.slug = %s"  # noqa: S608
    rows = connections().shared.one_statement(query, (_checked(slug),), retry=True)
    if not rows:
        raise TenantNotFound("There is no such tenant.")
    return _view(rows[0])


def configure_tenant(
    slug: str, *, name: str | None, status: TenantStatus | None, settings: Mapping[str, Any], actor: Actor
) -> None:
    """Change what is given; of `settings`, None takes one away. Counts from the tenant's next request on.

    Locks the tenant's row, notes before and after in its audit log, and commits. Raises TenantNotFound, Invalid,
    SchemaBehind.
    """
    connection = db.session.connection()
    before = registry.lock_tenant(connection, registry.get_tenant(connection, _checked(slug)).id)
    if before.revision < OLDEST_TENANT_REVISION and status in {None, TenantStatus.ACTIVE}:
        raise SchemaBehind("This tenant is being migrated; it can be stopped now, and changed afterwards.")
    if settings:
        registry.change_settings(connection, before.id, changed_settings(before.settings, settings))
    if name is not None:
        registry.set_name(connection, before.id, name)
    if status is not None:
        registry.set_status(connection, before.id, status)
    _note(actor, before, registry.get_tenant(connection, before.slug))
    db.session.commit()


def _note(actor: Actor, before: Tenant, after: Tenant) -> None:
    """A tenant in trouble can be stopped even if its log can't be written; then the service's own log says it."""
    told = {"before": _state(before), "after": _state(after)}
    try:
        # Neither a limit of its own nor a wrong setting is to keep an operator from mending just that.
        note_in(replace(before, settings={}), actor, "tenant.configure", **told)
    except (psycopg.Error, SQLAlchemyError, TenancyError) as error:
        if after.is_active:
            raise
        log.error(  # noqa: TRY400
            "audit_entry_lost", action="tenant.configure", tenant=before.slug, actor=actor.id, error=str(error), **told
        )


def _state(tenant: Tenant) -> dict[str, Any]:
    return {"name": tenant.name, "status": tenant.status, "settings": dict(tenant.settings)}


def _checked(slug: str) -> str:
    if not is_name(slug):  # Not even PostgreSQL needs to see it.
        raise TenantNotFound("There is no such tenant.")
    return slug


def _view(row: Any) -> TenantView:
    *columns, created_at = row
    tenant = tenant_from_row(columns)
    try:
        totals = read_as(tenant, _totals)
    except Unreadable:
        totals = None
    return TenantView(tenant, created_at, totals)


# A hold whose time is over is in `held_minor` until somebody lets it go; only wallets with holds are asked for theirs.
_HELD_NOW: Final = Wallet.held_minor - sa.case((Wallet.held_minor > 0, Wallet.over_minor.expression), else_=0)


def _totals() -> list[Totals]:
    sums = (Wallet.deposit_balance_minor, Wallet.credit_used_minor, _HELD_NOW)
    query = (
        sa.select(Wallet.currency, sa.func.count(), *(sa.func.sum(each) for each in sums))
        .group_by(Wallet.currency)
        .order_by(Wallet.currency)
    )
    rows = db.session.execute(query)
    return [Totals(currency, count, *map(int, summed)) for currency, count, *summed in rows]
