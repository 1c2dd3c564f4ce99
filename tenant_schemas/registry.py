"""The registry: one row in `shared.tenants` for each tenant. Without a row there is no tenant.

The application's first shared migration creates the table (`registry_table` describes it). Only the functions here
write it. They run in an open db transaction and commit nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from psycopg.types.json import Jsonb
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql

from tenant_schemas.errors import TenantNotFound
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant, TenantStatus

# In the order of Tenant's fields. `t` must be the table's alias in the query.
COLUMNS: Final = "t.id, t.slug, t.schema_name, t.role_name, t.name, t.status, t.login_epoch, t.revision, t.settings"


def registry_table(metadata: sa.MetaData) -> sa.Table:
    """The registry's table, for the application's metadata and foreign keys."""
    return sa.Table(
        "tenants",
        metadata,
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("slug", sa.Text, nullable=False),
        sa.Column("schema_name", sa.Text, nullable=False),
        sa.Column("role_name", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("login_epoch", sa.Integer, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("settings", postgresql.JSONB, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        # Counts the changes of the row: a trigger of the application's history raises it.
        sa.Column("version", sa.Integer, nullable=False, server_default="1"),
        sa.UniqueConstraint("slug", name="tenants_slug_key"),
        sa.UniqueConstraint("schema_name", name="tenants_schema_name_key"),
        sa.UniqueConstraint("id", "role_name", name="tenants_id_role_name_key"),
        schema=SHARED_SCHEMA,
    )


def tenant_from_row(row: Sequence[Any]) -> Tenant:
    """The Tenant of a row selected with COLUMNS."""
    tenant_id, slug, schema_name, role_name, name, status, login_epoch, revision, settings = row
    return Tenant(tenant_id, slug, schema_name, role_name, name, TenantStatus(status), login_epoch, revision, settings)


def all_tenants(connection: Connection) -> list[Tenant]:
    """All tenants of any status, ordered by slug."""
    rows = connection.exec_driver_sql(f"SELECT {COLUMNS} FROM shared.tenants t ORDER BY t.slug")  # noqa: S608
    return [tenant_from_row(row) for row in rows]


def get_tenant(connection: Connection, slug: str) -> Tenant:
    """The tenant of any status with this slug. Raises TenantNotFound."""
    query = f"SELECT {COLUMNS} FROM shared.tenants t WHERE t.slug = %s"  # noqa: S608
    row = connection.exec_driver_sql(query, (slug,)).one_or_none()
    if row is None:
        raise TenantNotFound(f"There is no tenant {slug!r}.")
    return tenant_from_row(row)


def get_tenant_by_id(connection: Connection, tenant_id: UUID) -> Tenant:
    """The tenant of any status with this id. Raises TenantNotFound."""
    return _tenant_by_id(connection, tenant_id)


def lock_tenant(connection: Connection, tenant_id: UUID) -> Tenant:
    """Lock the tenant's row against other writers until the db transaction ends. Raises TenantNotFound."""
    return _tenant_by_id(connection, tenant_id, "FOR NO KEY UPDATE")


def _tenant_by_id(connection: Connection, tenant_id: UUID, lock: str = "") -> Tenant:
    query = f"SELECT {COLUMNS} FROM shared.tenants t WHERE t.id = %s {lock}"  # noqa: S608
    row = connection.exec_driver_sql(query, (tenant_id,)).one_or_none()
    if row is None:
        raise TenantNotFound(f"There is no tenant with the id {tenant_id}.")
    return tenant_from_row(row)


def lock_tenant_by_slug(connection: Connection, slug: str) -> Tenant:
    """`lock_tenant` by slug. Raises TenantNotFound, also if the tenant was renamed or dropped during the wait."""
    tenant = lock_tenant(connection, get_tenant(connection, slug).id)
    if tenant.slug != slug:
        raise TenantNotFound(f"There is no tenant {slug!r}: it was just renamed to {tenant.slug!r}.")
    return tenant


def add_tenant(connection: Connection, tenant: Tenant) -> None:
    """Register a tenant whose schema is ready: the last step of provisioning."""
    connection.exec_driver_sql(
        "INSERT INTO shared.tenants"
        " (id, slug, schema_name, role_name, name, status, login_epoch, revision, settings)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            tenant.id,
            tenant.slug,
            tenant.schema_name,
            tenant.role_name,
            tenant.name,
            tenant.status,
            tenant.login_epoch,
            tenant.revision,
            Jsonb(dict(tenant.settings)),
        ),
    )


def set_revision(connection: Connection, tenant_id: UUID, revision: str) -> None:
    """Record the revision of the tenant's schema, in the db transaction that migrated it."""
    connection.exec_driver_sql("UPDATE shared.tenants SET revision = %s WHERE id = %s", (revision, tenant_id))


def set_schema(connection: Connection, tenant_id: UUID, schema_name: str, revision: str) -> None:
    """Record another schema for the tenant, and that schema's revision. The caller must set the login's search_path in
    the same db transaction.
    """
    statement = "UPDATE shared.tenants SET schema_name = %s, revision = %s WHERE id = %s"
    connection.exec_driver_sql(statement, (schema_name, revision, tenant_id))


def set_status(connection: Connection, tenant_id: UUID, status: TenantStatus) -> None:
    """Activate, suspend or archive a tenant. Takes effect on its next request."""
    connection.exec_driver_sql("UPDATE shared.tenants SET status = %s WHERE id = %s", (status, tenant_id))


def set_name(connection: Connection, tenant_id: UUID, name: str) -> None:
    """Change a tenant's display name. Its slug stays."""
    connection.exec_driver_sql("UPDATE shared.tenants SET name = %s WHERE id = %s", (name, tenant_id))


def set_names(connection: Connection, tenant: Tenant) -> None:
    """Record a tenant's slug, role, schema and display name. The caller renames the role and the schema themselves."""
    connection.exec_driver_sql(
        "UPDATE shared.tenants SET slug = %s, role_name = %s, schema_name = %s, name = %s WHERE id = %s",
        (tenant.slug, tenant.role_name, tenant.schema_name, tenant.name, tenant.id),
    )


def increment_login_epoch(connection: Connection, tenant_id: UUID) -> Tenant:
    """Increment the tenant's login epoch, which changes its derived password; locks and returns the row. The caller
    must set the login's password in the same db transaction.
    """
    locked = lock_tenant(connection, tenant_id)
    epoch = locked.login_epoch + 1
    connection.exec_driver_sql("UPDATE shared.tenants SET login_epoch = %s WHERE id = %s", (epoch, tenant_id))
    return replace(locked, login_epoch=epoch)


def change_settings(connection: Connection, tenant_id: UUID, changed: Mapping[str, Any]) -> None:
    """Change these settings and keep the others; None removes a setting. The application must validate them. Takes
    effect on the tenant's next request.
    """
    connection.exec_driver_sql(
        "UPDATE shared.tenants SET settings = pg_catalog.jsonb_strip_nulls(settings || %s) WHERE id = %s",
        (Jsonb(dict(changed)), tenant_id),
    )
