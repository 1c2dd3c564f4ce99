"""Adopts a schema of which the registry knows no tenant any more: it was renamed by hand, or the tenant's row is gone.

The operator names the schema, and the tenant's id if there is no row. Nothing is guessed, and a schema that another
tenant has, or that is retired, is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from psycopg import sql
from sqlalchemy import Connection

from tenant_schemas import registry
from tenant_schemas.errors import RepairRefused, TenantNotFound
from tenant_schemas.migrations.history import History, Migrations, current_revision
from tenant_schemas.repair.changes import Changes
from tenant_schemas.roles import ServiceRoles, become_owner, stop_being_owner
from tenant_schemas.tenant import Tenant, TenantStatus, check_display_name, check_schema_name, check_slug, role_name_of

_EXISTS: Final = "SELECT to_regnamespace(quote_ident(%s)) IS NOT NULL"
_TAKEN: Final = """
    SELECT 'tenant ' || slug || ' has it' FROM shared.tenants WHERE schema_name = %(schema)s
    UNION ALL SELECT 'it is a retired schema of tenant ' || slug || ': use `restore_tenant --from-retired`'
        FROM shared.spare_schemas WHERE schema_name = %(schema)s"""
# A new, high epoch keeps an old password from becoming valid again.
_EPOCH: Final = "SELECT floor(extract(epoch FROM clock_timestamp()) / 60)::int"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """A schema to adopt. The other values are for a tenant without a row, and must be given then."""

    schema_name: str
    tenant_id: UUID | None = None
    name: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def adopt(changes: Changes, migrations: Migrations, slug: str, adoption: Adoption) -> None:
    """Give the tenant its schema: one that was renamed gets the registered name back, and for a tenant without a row
    one is added, suspended. Commits nothing. Raises RepairRefused, NameRefused.
    """
    connection = changes.connection
    become_owner(connection, migrations.roles)
    connection.exec_driver_sql("LOCK TABLE shared.tenants IN SHARE ROW EXCLUSIVE MODE")
    stop_being_owner(connection)
    _check_schema(connection, adoption.schema_name)
    try:
        tenant = registry.get_tenant(connection, slug)
    except TenantNotFound:
        _add_tenant(changes, migrations, slug, adoption)
    else:
        _rename_back(changes, tenant, migrations.roles, adoption)


def _check_schema(connection: Connection, schema_name: str) -> None:
    check_schema_name(schema_name)
    if not connection.exec_driver_sql(_EXISTS, (schema_name,)).scalar_one():
        raise RepairRefused(f"Schema {schema_name} does not exist. Nothing was changed.")
    for (reason,) in connection.exec_driver_sql(_TAKEN, {"schema": schema_name}):
        raise RepairRefused(f"Schema {schema_name} can't be adopted: {reason}. Nothing was changed.")


def _rename_back(changes: Changes, tenant: Tenant, roles: ServiceRoles, adoption: Adoption) -> None:
    if adoption.tenant_id not in (None, tenant.id):
        raise RepairRefused(f"Tenant {tenant.slug} has the id {tenant.id}. Nothing was changed.")
    if changes.connection.exec_driver_sql(_EXISTS, (tenant.schema_name,)).scalar_one():
        raise RepairRefused(f"Tenant {tenant.slug} has its schema {tenant.schema_name}. Nothing was changed.")
    names = [sql.Identifier(name).as_string() for name in (adoption.schema_name, tenant.schema_name)]
    become_owner(changes.connection, roles)
    changes.run(f"ALTER SCHEMA {names[0]} RENAME TO {names[1]}")
    stop_being_owner(changes.connection)


def _add_tenant(changes: Changes, migrations: Migrations, slug: str, adoption: Adoption) -> None:
    if adoption.tenant_id is None or not adoption.settings:
        raise RepairRefused(
            f"There is no tenant {slug}: to add its row, give its id (--id) and its currency (--currency), as the "
            "manifest of a bundle has them. Nothing was changed."
        )
    connection = changes.connection
    revision = _revision(changes, migrations, adoption.schema_name)
    tenant = Tenant(
        id=adoption.tenant_id,
        slug=check_slug(slug),
        schema_name=adoption.schema_name,
        role_name=role_name_of(slug),
        name=check_display_name(adoption.name or slug),
        status=TenantStatus.SUSPENDED,
        login_epoch=connection.exec_driver_sql(_EPOCH).scalar_one(),
        revision=revision,
        settings=adoption.settings,
    )
    become_owner(connection, migrations.roles)
    registry.add_tenant(connection, tenant)
    stop_being_owner(connection)
    changes.note(
        f"INSERT INTO shared.tenants: {slug}, {tenant.id}, {tenant.schema_name}, revision {revision}, suspended"
    )


def _revision(changes: Changes, migrations: Migrations, schema_name: str) -> str:
    """The revision in the schema. Raises RepairRefused if it has none, or one that the history does not have."""
    revision = current_revision(changes.connection, schema_name)
    if revision is None or revision > migrations.head(History.TENANT):
        raise RepairRefused(
            f"Schema {schema_name} is no schema of a tenant of this release: its revision is {revision or 'none'}. "
            "Nothing was changed."
        )
    return revision
