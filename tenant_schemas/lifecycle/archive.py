"""Archives and unarchives a tenant by its status in the registry. Schema, login role and data stay unchanged, and
migrations still run on an archived tenant. The application decides who may read it and must refuse every write.
"""

from typing import Final

from sqlalchemy import Connection

from tenant_schemas.errors import StatusRefused
from tenant_schemas.registry import lock_tenant_by_slug, set_status
from tenant_schemas.tenant import Tenant, TenantStatus

# The statuses from which each status may be reached.
_ALLOWED_BEFORE: Final = {
    TenantStatus.ARCHIVED: {TenantStatus.ACTIVE, TenantStatus.SUSPENDED},
    TenantStatus.ACTIVE: {TenantStatus.ARCHIVED},
}


def archive(connection: Connection, slug: str) -> Tenant:
    """Archive an active or suspended tenant within the open db transaction; returns the tenant before the change.
    Takes effect on its next request. Raises TenantNotFound, StatusRefused.
    """
    return _change_status(connection, slug, TenantStatus.ARCHIVED)


def unarchive(connection: Connection, slug: str) -> Tenant:
    """Activate an archived tenant within the open db transaction; returns the tenant before the change. Raises
    TenantNotFound, StatusRefused.
    """
    return _change_status(connection, slug, TenantStatus.ACTIVE)


def _change_status(connection: Connection, slug: str, status: TenantStatus) -> Tenant:
    before = lock_tenant_by_slug(connection, slug)
    if before.status not in _ALLOWED_BEFORE[status]:
        allowed = " or ".join(sorted(_ALLOWED_BEFORE[status]))
        raise StatusRefused(f"Tenant {slug!r} is {before.status}; only an {allowed} tenant can become {status}.")
    set_status(connection, before.id, status)
    return before
