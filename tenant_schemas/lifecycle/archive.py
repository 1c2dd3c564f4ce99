"""Suspends, resumes, archives and unarchives a tenant by its status in the registry. Schema, login role and data stay
unchanged, and migrations still run. The application decides who may read it and must refuse every write.
"""

from sqlalchemy import Connection

from tenant_schemas.errors import StatusRefused
from tenant_schemas.registry import lock_tenant_by_slug, set_status
from tenant_schemas.tenant import Tenant, TenantStatus


def suspend(connection: Connection, slug: str) -> Tenant:
    """Suspend an active tenant within the open db transaction; returns the tenant before the change. Takes effect on
    its next request. Raises TenantNotFound, StatusRefused.
    """
    return _change_status(connection, slug, TenantStatus.SUSPENDED, {TenantStatus.ACTIVE})


def resume(connection: Connection, slug: str) -> Tenant:
    """Activate a suspended tenant within the open db transaction; returns the tenant before the change. Raises
    TenantNotFound, StatusRefused.
    """
    return _change_status(connection, slug, TenantStatus.ACTIVE, {TenantStatus.SUSPENDED})


def archive(connection: Connection, slug: str) -> Tenant:
    """Archive an active or suspended tenant within the open db transaction; returns the tenant before the change.
    Takes effect on its next request. Raises TenantNotFound, StatusRefused.
    """
    return _change_status(connection, slug, TenantStatus.ARCHIVED, {TenantStatus.ACTIVE, TenantStatus.SUSPENDED})


def unarchive(connection: Connection, slug: str) -> Tenant:
    """Activate an archived tenant within the open db transaction; returns the tenant before the change. Raises
    TenantNotFound, StatusRefused.
    """
    return _change_status(connection, slug, TenantStatus.ACTIVE, {TenantStatus.ARCHIVED})


def _change_status(connection: Connection, slug: str, status: TenantStatus, allowed: set[TenantStatus]) -> Tenant:
    before = lock_tenant_by_slug(connection, slug)
    if before.status not in allowed:
        names = " or ".join(sorted(allowed))
        raise StatusRefused(
            f"Tenant {slug!r} is {before.status}, and this needs one that is {names}. Nothing was changed."
        )
    set_status(connection, before.id, status)
    return before
