"""The operator's list of wallets: all active tenants by slug, and inside a tenant in the order of its own list.

Each tenant is read under its own role (`app/tenants/fan_out.py`). Its audit log records the
look, also if no wallet matches the filters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.api.pagination import Position
from app.audit.service import add_entry
from app.auth.actors import Actor
from app.tenants import fan_out
from app.tenants.fan_out import Budget, Unreadable, read_as
from app.wallets import service
from app.wallets.models import MemberWallet
from tenant_schemas.flask import connections
from tenant_schemas.registry import COLUMNS, tenant_from_row
from tenant_schemas.tenant import Tenant


@dataclass(slots=True)
class AllTenantsWallets:
    """The wallets found so far. `position` is where the next page starts: (slug, opened_at, id) inside a tenant,
    (slug,) after it, None at the end.
    """

    items: list[MemberWallet] = field(default_factory=list)
    unavailable: list[str] = field(default_factory=list)
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class AllTenantsWalletsPage:
    """A page of the list. The tenants in `unavailable` could not be read and were skipped."""

    items: Sequence[MemberWallet]
    unavailable: Sequence[str]
    next_cursor: str | None


def list_all_tenants_wallets(
    *, after: Position | None, limit: int, actor: Actor, may_enter: Callable[[Tenant], bool], **filters: Any
) -> AllTenantsWallets:
    """Up to `limit` wallets; fewer if the budget of tenants or time ends first. A tenant that the operator may not
    enter is unavailable. Commits after each tenant.
    """
    found, budget = AllTenantsWallets(), Budget()
    for tenant in _tenants_from(after):
        if not budget.allows_another():
            return found
        inside = after[1:] if after and after[0] == tenant.slug else None
        room = limit - len(found.items)

        def read(inside: Position | None = inside, room: int = room) -> list[MemberWallet]:
            wallets = service.list_wallets(after=inside, limit=room + 1, **filters)
            if room:
                add_entry(actor, "look", subject="/api/admin/wallets")
            return wallets

        try:
            wallets = read_as(tenant, read) if may_enter(tenant) else None
        except Unreadable:
            wallets = None
        if wallets is None:
            found.unavailable.append(tenant.slug)
            wallets = []
        found.items += wallets[:room]
        if len(wallets) > room:
            # With no room left, the query only told that there are more; then the position stays.
            found.position = _position_of(found.items[-1]) if room else found.position
            return found
        found.position = [tenant.slug]
    found.position = None
    return found


def _tenants_from(after: Position | None) -> list[Tenant]:
    """The active tenants by slug, from the position on: one more than a request may read, which tells whether the list
    ends.
    """
    from_slug = after[0] if after else ""
    inside = from_slug if after and len(after) > 1 else None
    query = (
        f"SELECT {COLUMNS} FROM shared.tenants t"  # noqa: S608
        " WHERE t.status = 'active' AND (t.slug > %s OR t.slug = %s) ORDER BY t.slug LIMIT %s"
    )
    rows = connections().shared.one_statement(query, (from_slug, inside, fan_out.MOST_TENANTS + 1), retry=True)
    return [tenant_from_row(row) for row in rows]


def _position_of(item: MemberWallet) -> Position:
    return [item.tenant_slug, item.opened_at, item.id]
