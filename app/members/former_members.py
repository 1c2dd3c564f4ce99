"""Forgets who former members were. A trigger remembers them when they are removed, for a time that each tenant sets.
Another deletes their invitations when they are forgotten; who has a valid one is kept until it is over.

Works on the shared side, where row-level security does not separate tenants: so each statement names its tenant.
"""

from typing import Final
from uuid import UUID

from tenant_schemas.flask import connections
from tenant_schemas.tenant import Tenant

# Ten years: as long as most countries want the books to be kept.
DEFAULT_DAYS: Final = 3650
# Each tenant's rows are one range of an index. A setting that is no number, which SQL by hand can make, counts as none.
_FORGET_EXPIRED: Final = """
    WITH times AS (
        SELECT t.id, now() - make_interval(days => CASE
            WHEN t.settings->>'former_member_days' ~ '^[0-9]{1,5}$' THEN (t.settings->>'former_member_days')::integer
            ELSE %(days)s END) AS oldest
        FROM shared.tenants t
    ), expired AS (
        SELECT e.tenant_id, e.user_id FROM times CROSS JOIN LATERAL (
            SELECT f.tenant_id, f.user_id FROM shared.former_members f
            WHERE f.tenant_id = times.id AND f.removed_at < times.oldest AND NOT EXISTS (
                SELECT FROM shared.invitations i WHERE i.tenant_id = f.tenant_id AND i.email = f.email
                    AND i.accepted_at IS NULL AND i.revoked_at IS NULL AND i.expires_at > now())
            ORDER BY f.removed_at LIMIT %(limit)s) e
        LIMIT %(limit)s
    ), forgotten AS (
        DELETE FROM shared.former_members f USING expired e WHERE f.tenant_id = e.tenant_id AND f.user_id = e.user_id
        RETURNING 1
    ) SELECT count(*) FROM forgotten"""
_FORGET: Final = "DELETE FROM shared.former_members WHERE tenant_id = %s AND user_id = %s RETURNING user_id"


def forget_expired(*, batch: int) -> int:
    """Forget the former members of all tenants whose time is over, `batch` at a time, each batch committed. Returns
    their number. Of two calls at once, the second waits for the first, and may end early.
    """
    count: int = 0
    while True:
        ((forgotten,),) = connections().shared.one_statement(_FORGET_EXPIRED, {"days": DEFAULT_DAYS, "limit": batch})
        count += forgotten
        if forgotten < batch:
            return count


def forget_former_member(tenant: Tenant, user_id: UUID) -> bool:
    """Forget one former member of a tenant at once; commits. Returns whether there was one."""
    return bool(connections().shared.one_statement(_FORGET, (tenant.id, user_id)))
