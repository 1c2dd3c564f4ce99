"""Puts a tenant away and takes it back. Its schema, its login and its data stay as they are: who may still read of an
archived tenant is for the application to say, and that it lets nobody write. Migrations go on in it.
"""

from typing import Final

from sqlalchemy import Connection

from tenant_schemas.errors import StatusRefused
from tenant_schemas.registry import lock_tenant_by_slug, set_status
from tenant_schemas.tenant import Tenant, TenantStatus

# Which statuses a tenant may have before it gets this one.
_BEFORE: Final = {
    TenantStatus.ARCHIVED: {TenantStatus.ACTIVE, TenantStatus.SUSPENDED},
    TenantStatus.ACTIVE: {TenantStatus.ARCHIVED},
}


def archive(connection: Connection, slug: str) -> Tenant:
    """Archive a tenant that is active or suspended, in the open db transaction; returns it as it was. Takes effect on
    its next request. Raises TenantNotFound, StatusRefused.
    """
    return _move(connection, slug, TenantStatus.ARCHIVED)


def unarchive(connection: Connection, slug: str) -> Tenant:
    """Serve an archived tenant again, in the open db transaction; returns it as it was. Raises TenantNotFound,
    StatusRefused.
    """
    return _move(connection, slug, TenantStatus.ACTIVE)


def _move(connection: Connection, slug: str, status: TenantStatus) -> Tenant:
    before = lock_tenant_by_slug(connection, slug)
    if before.status not in _BEFORE[status]:
        raise StatusRefused(f"Tenant {slug!r} is {before.status}.")
    set_status(connection, before.id, status)
    return before
