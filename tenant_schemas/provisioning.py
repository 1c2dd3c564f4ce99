"""Makes a tenant: role, schema, grants, migrations, and the registry row last, in one db transaction.

PostgreSQL's DDL is transactional, roles included, so a crash at any step leaves nothing at all and the same call can
be made again. No code path makes a tenant but this one.
"""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Engine

from tenant_schemas import registry
from tenant_schemas.errors import NotPrepared, TenantExists
from tenant_schemas.migrations import History, Migrations, current_revision, set_timeouts
from tenant_schemas.roles import (
    become_owner,
    create_tenant_role,
    create_tenant_schema,
    role_exists,
    stop_being_owner,
    tenant_password,
)
from tenant_schemas.tenant import (
    SHARED_SCHEMA,
    Tenant,
    TenantStatus,
    check_schema_name,
    check_slug,
    default_schema_name,
    role_name_of,
)


def provision(
    engine: Engine,
    migrations: Migrations,
    *,
    slug: str,
    name: str,
    settings: Mapping[str, Any],
    tenant_secret: str,
    schema_name: str | None = None,
    reserved_slugs: frozenset[str] = frozenset(),
) -> Tenant:
    """Make an active tenant and return it, committed; or raise and leave nothing.

    `engine` logs in as the migrator. `tenant_secret` is the master secret from which the service derives the same
    password. Raises NameRefused, TenantExists, NotPrepared. Two calls for one slug at once: one wins, the other
    raises TenantExists.
    """
    tenant = tenant_to_be(
        migrations, slug=slug, name=name, settings=settings, schema_name=schema_name, reserved_slugs=reserved_slugs
    )
    with engine.begin() as connection:
        set_timeouts(connection)
        provision_in(connection, migrations, tenant, tenant_secret)
    return tenant


def tenant_to_be(
    migrations: Migrations,
    *,
    slug: str,
    name: str,
    settings: Mapping[str, Any],
    schema_name: str | None = None,
    reserved_slugs: frozenset[str] = frozenset(),
) -> Tenant:
    """A tenant as it will be when it is made. Asks no database. Raises NameRefused."""
    return Tenant(
        id=uuid4(),
        slug=check_slug(slug, reserved_slugs),
        schema_name=check_schema_name(schema_name or default_schema_name(slug)),
        role_name=role_name_of(slug),
        name=name,
        status=TenantStatus.ACTIVE,
        login_epoch=1,
        revision=migrations.head(History.TENANT),
        settings=settings,
    )


def provision_in(connection: Connection, migrations: Migrations, tenant: Tenant, tenant_secret: str) -> None:
    """Make the tenant within the migrator's open db transaction, for whoever has something to add to that: it then acts
    as the owner, in the new tenant's schema. Commits nothing itself; time-outs are the caller's to set.

    Raises TenantExists, NotPrepared.
    """
    _refuse_unprepared(connection, migrations)
    _refuse_taken(connection, tenant, migrations)
    password = tenant_password(tenant_secret, tenant.id, tenant.login_epoch)
    create_tenant_role(connection, tenant, password, migrations.roles)
    become_owner(connection, migrations.roles)
    create_tenant_schema(connection, tenant)
    migrations.upgrade_tenant(connection, tenant)
    registry.add_tenant(connection, tenant)


def _refuse_unprepared(connection: Connection, migrations: Migrations) -> None:
    at, head = current_revision(connection, SHARED_SCHEMA), migrations.head(History.SHARED)
    if at != head:
        raise NotPrepared(
            f"Schema {SHARED_SCHEMA} is at {at or 'nothing'}, not {head}: run `python -m scripts.migrate`."
        )


def _refuse_taken(connection: Connection, tenant: Tenant, migrations: Migrations) -> None:
    """Say what is taken. Provisioning runs are few, so they queue at the registry rather than race."""
    become_owner(connection, migrations.roles)
    connection.exec_driver_sql("LOCK TABLE shared.tenants IN SHARE ROW EXCLUSIVE MODE")
    stop_being_owner(connection)
    taken = "SELECT slug FROM shared.tenants WHERE slug = %s OR schema_name = %s"
    row = connection.exec_driver_sql(taken, (tenant.slug, tenant.schema_name)).first()
    if row:
        raise TenantExists(f"Tenant {row.slug!r} has that slug or schema.")
    in_use = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s)"
    if connection.exec_driver_sql(in_use, (tenant.schema_name,)).scalar_one():
        raise TenantExists(f"Schema {tenant.schema_name!r} exists and belongs to no tenant; choose another name.")
    if role_exists(connection, tenant.role_name):
        raise TenantExists(
            f"Role {tenant.role_name!r} exists on this server and belongs to no tenant of this database. "
            f"If no other database uses it: DROP ROLE {tenant.role_name};"
        )
