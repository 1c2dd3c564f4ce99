"""Makes a tenant: role, schema, grants, migrations, and the registry row last, in one db transaction.

PostgreSQL's DDL is transactional, roles included, so a crash at any step leaves nothing at all and the same call can
be made again. No code path makes a tenant but this one.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from uuid import uuid4

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from tenant_schemas import registry
from tenant_schemas.errors import NameRefused, NotPrepared, ProvisioningError, TenantExists
from tenant_schemas.migrations.history import History, Migrations, current_revision, set_timeouts, sqlstate_of
from tenant_schemas.roles import (
    become_owner,
    create_tenant_role,
    create_tenant_schema,
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

_LOCK_NOT_AVAILABLE: Final = "55P03"
_TAKEN: Final = """
    SELECT (SELECT slug FROM shared.tenants WHERE slug = %(slug)s OR schema_name = %(schema)s LIMIT 1) AS slug,
        EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s)
            OR EXISTS (SELECT FROM shared.spare_schemas WHERE schema_name = %(schema)s) AS has_schema,
        EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %(role)s) AS has_role"""


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


def provision_many(
    engine: Engine, migrations: Migrations, tenants: Iterable[Tenant], tenant_secret: str
) -> Iterator[tuple[Tenant, ProvisioningError | None]]:
    """Make tenants that `tenant_to_be` has checked, one after another, each committed by itself; yields what became of
    each as it happens. One that can't be made leaves nothing and stops nobody; what is no fault of its own is raised.
    """
    with engine.connect() as connection:
        for tenant in tenants:
            try:
                with connection.begin():
                    set_timeouts(connection)
                    provision_in(connection, migrations, tenant, tenant_secret)
            except TenantExists as error:
                yield tenant, error
            except (psycopg.errors.LockNotAvailable, OperationalError) as error:
                if sqlstate_of(error) != _LOCK_NOT_AVAILABLE:
                    raise
                yield tenant, ProvisioningError(f"{tenant.slug}: somebody was changing tenants all the while.")
            else:
                yield tenant, None


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
    if "\0" in name:
        raise NameRefused("A name can't have a NUL in it.")
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
    refuse_unprepared(connection, migrations)
    _refuse_taken(connection, tenant, migrations)
    password = tenant_password(tenant_secret, tenant.id, tenant.login_epoch)
    create_tenant_role(connection, tenant, password, migrations.roles)
    become_owner(connection, migrations.roles)
    make_schema(connection, migrations, tenant)
    registry.add_tenant(connection, tenant)


def make_schema(connection: Connection, migrations: Migrations, tenant: Tenant) -> None:
    """Make the tenant's schema at its revision by replaying the history, within the open db transaction, as the owner,
    and leave that bound to it. The login must be there; the registry is the caller's to write.
    """
    create_tenant_schema(connection, tenant)
    migrations.upgrade_tenant(connection, tenant, tenant.revision)


def refuse_unprepared(connection: Connection, migrations: Migrations) -> None:
    """Raises NotPrepared unless `shared` is at its head."""
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
    names = {"slug": tenant.slug, "schema": tenant.schema_name, "role": tenant.role_name}
    taken = connection.exec_driver_sql(_TAKEN, names).one()
    if taken.slug:
        raise TenantExists(f"Tenant {taken.slug!r} has that slug or schema.")
    if taken.has_schema:
        raise TenantExists(f"Schema {tenant.schema_name!r} exists and belongs to no tenant; choose another name.")
    if taken.has_role:
        raise TenantExists(
            f"Role {tenant.role_name!r} exists on this server and belongs to no tenant of this database. "
            f"If no other database uses it: DROP ROLE {tenant.role_name};"
        )
