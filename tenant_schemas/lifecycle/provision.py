"""Provisions a tenant in one db transaction: role, schema, grants, migrations, and the registry row last.

DDL in PostgreSQL is transactional, roles included: after a crash at any step nothing is left, and the same call can be
repeated. `provision_in` is the only code that adds a new, empty tenant.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from uuid import uuid4

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from tenant_schemas import registry
from tenant_schemas.errors import NotPrepared, ProvisioningError, TenantExists
from tenant_schemas.migrations.history import History, Migrations, current_revision, set_timeouts, sqlstate_of
from tenant_schemas.roles import (
    become_owner,
    create_tenant_role,
    create_tenant_schema,
    driver_of,
    stop_being_owner,
    tenant_password,
)
from tenant_schemas.secret_checks import check_tenant_secret
from tenant_schemas.tenant import (
    SHARED_SCHEMA,
    Tenant,
    TenantStatus,
    check_display_name,
    check_schema_name,
    check_slug,
    default_schema_name,
    role_name_of,
)

_LOCK_NOT_AVAILABLE: Final = "55P03"
_USED_NAMES: Final = """
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
    """Provision an active tenant; commits and returns it.

    `engine` logs in as the migrator. `tenant_secret` is the service's master secret, from which the tenant's password
    is derived. Raises NameRefused, TenantExists, NotPrepared, and then nothing is left. Of two concurrent calls for one
    slug, one raises TenantExists.
    """
    tenant = new_tenant(
        migrations, slug=slug, name=name, settings=settings, schema_name=schema_name, reserved_slugs=reserved_slugs
    )
    with engine.begin() as connection:
        set_timeouts(connection)
        provision_in(connection, migrations, tenant, tenant_secret)
    return tenant


def provision_many(
    engine: Engine, migrations: Migrations, tenants: Iterable[Tenant], tenant_secret: str
) -> Iterator[tuple[Tenant, ProvisioningError | None]]:
    """Provision tenants from `new_tenant` one after another, each in its own db transaction; yields each with its
    error or None. A tenant that fails with TenantExists or a lock timeout leaves nothing, and the next one follows;
    any other error is raised.
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
                reason = "a lock timed out, because another session is changing tenants. Try again."
                yield tenant, ProvisioningError(f"Tenant {tenant.slug!r} was not provisioned: {reason}")
            else:
                yield tenant, None


def new_tenant(
    migrations: Migrations,
    *,
    slug: str,
    name: str,
    settings: Mapping[str, Any],
    schema_name: str | None = None,
    reserved_slugs: frozenset[str] = frozenset(),
) -> Tenant:
    """A new tenant's registry values, checked without a database. Raises NameRefused."""
    check_display_name(name)
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
    """Provision a tenant within the migrator's open db transaction, which then acts as the owner, bound to the new
    schema. The caller sets the timeouts and commits. Locks the registry, and the secret against a rotation. Raises
    TenantExists, NotPrepared, SecretRefused.
    """
    check_prepared(connection, migrations)
    check_tenant_secret(driver_of(connection), tenant_secret, lock=True)
    _check_names_free(connection, tenant, migrations)
    password = tenant_password(tenant_secret, tenant.id, tenant.login_epoch)
    create_tenant_role(connection, tenant, password, migrations.roles)
    become_owner(connection, migrations.roles)
    make_schema(connection, migrations, tenant)
    registry.add_tenant(connection, tenant)


def make_schema(connection: Connection, migrations: Migrations, tenant: Tenant) -> None:
    """Create the tenant's schema and migrate it to the tenant's revision, within the owner's open db transaction, which
    is then bound to the schema. The login role must exist; the caller writes the registry.
    """
    create_tenant_schema(connection, tenant)
    migrations.upgrade_tenant(connection, tenant, tenant.revision)


def check_prepared(connection: Connection, migrations: Migrations) -> None:
    """Raises NotPrepared unless `shared` is at its head, or newer than this code."""
    at, head = current_revision(connection, SHARED_SCHEMA), migrations.head(History.SHARED)
    if at != head and not migrations.history(History.SHARED).is_older_than(at):
        raise NotPrepared(
            f"Schema {SHARED_SCHEMA} is at {at or 'nothing'}, not at its head {head}: run `python -m scripts.migrate`."
        )


def _check_names_free(connection: Connection, tenant: Tenant, migrations: Migrations) -> None:
    """Lock the registry until the db transaction ends, so that concurrent provisioning waits here, and raise
    TenantExists if slug, schema or role is in use.
    """
    become_owner(connection, migrations.roles)
    connection.exec_driver_sql("LOCK TABLE shared.tenants IN SHARE ROW EXCLUSIVE MODE")
    stop_being_owner(connection)
    names = {"slug": tenant.slug, "schema": tenant.schema_name, "role": tenant.role_name}
    used = connection.exec_driver_sql(_USED_NAMES, names).one()
    if used.slug:
        raise TenantExists(
            f"Tenant {used.slug!r} has that slug or schema ({tenant.slug!r}, {tenant.schema_name!r}): choose others."
        )
    if used.has_schema:
        raise TenantExists(f"Schema {tenant.schema_name!r} exists and belongs to no tenant: choose another name.")
    if used.has_role:
        raise TenantExists(
            f"Role {tenant.role_name!r} exists on this server and belongs to no tenant of this database. "
            f"If no other database uses it: DROP ROLE {tenant.role_name};"
        )
