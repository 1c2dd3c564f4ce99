"""Databases to throw away, made by the same functions that make a real installation: a template with its tenants, once,
and copies of it. And a server to throw away, for those who have none.

Everything made is dropped again: databases, the tenants' roles, the service's roles. A server that has a real
installation is refused.
"""

import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from psycopg.rows import TupleRow

from tenant_schemas import embedded
from tenant_schemas.lifecycle.provision import provision
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.registry import all_tenants, get_tenant
from tenant_schemas.roles import (
    ServiceRoles,
    create_pool_role,
    create_service_roles,
    pool_password,
    revoke_public_privileges,
    role_exists,
    tenant_password,
)
from tenant_schemas.tenant import Tenant

MADE_BY_US = "made by tenant_schemas.testing.plugin"
# Nothing here must outlive a crash, so nothing waits for the disk.
FAST_SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=600")


@dataclass(frozen=True, slots=True)
class Database:
    """One database of the test server, and the means to be anybody in it."""

    name: str
    server_url: str
    roles: ServiceRoles
    passwords: Mapping[str, str]
    tenant_secret: str
    _open: list[psycopg.Connection[TupleRow]] = field(default_factory=list)

    def url(self, role_name: str | None = None, password: str | None = None) -> str:
        """The URL of a login; the superuser's without a name."""
        url = sa.make_url(self.server_url).set(database=self.name)
        if role_name is not None:
            url = url.set(username=role_name, password=password or self.passwords[role_name])
        return url.render_as_string(hide_password=False)

    @property
    def app_url(self) -> str:
        return self.url(self.roles.app)

    @property
    def admin_url(self) -> str:
        return self.url(self.roles.migrator)

    def admin_engine(self) -> sa.Engine:
        """The migrator's engine, one connection at a time."""
        return sa.create_engine(sa.make_url(self.admin_url).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)

    def tenants(self) -> list[Tenant]:
        with self.admin_engine().connect() as connection:
            return all_tenants(connection)

    def tenant(self, slug: str) -> Tenant:
        with self.admin_engine().connect() as connection:
            return get_tenant(connection, slug)

    def as_superuser(self) -> psycopg.Connection[TupleRow]:
        return self._connect(self.url())

    def as_role(self, role_name: str) -> psycopg.Connection[TupleRow]:
        """A psycopg connection as a service role, in autocommit."""
        return self._connect(self.url(role_name))

    def as_tenant(self, slug: str) -> psycopg.Connection[TupleRow]:
        """A psycopg connection as the tenant's own login, in autocommit."""
        tenant = self.tenant(slug)
        return self._connect(self.url(tenant.role_name, self.password_of(tenant)))

    def as_pool(self) -> psycopg.Connection[TupleRow]:
        """A psycopg connection as the login that tenants may share, in autocommit."""
        return self._connect(self.url(self.roles.pool, pool_password(self.tenant_secret)))

    def password_of(self, tenant: Tenant) -> str:
        return tenant_password(self.tenant_secret, tenant.id, tenant.login_epoch)

    def close(self) -> None:
        """Close every connection that was handed out."""
        while self._open:
            self._open.pop().close()

    def _connect(self, url: str) -> psycopg.Connection[TupleRow]:
        connection = psycopg.connect(url, autocommit=True)
        self._open.append(connection)
        return connection


@contextmanager
def embedded_server() -> Iterator[str]:
    """A superuser's URL on a fast embedded server."""
    with tempfile.TemporaryDirectory(prefix="tenant-schemas-") as folder:
        server = embedded.start(Path(folder), FAST_SETTINGS)
        try:
            yield server.superuser_url()
        finally:
            server.release()


@contextmanager
def made_template(
    server_url: str, migrations: Migrations, slugs: Sequence[str], settings: Mapping[str, Mapping[str, Any]]
) -> Iterator[Database]:
    """A prepared database with these tenants. Never connect to it: copies are made from it.

    The one template of its server: the service's roles, and the tenants', belong to the whole server.
    """
    roles = migrations.roles
    logins = (roles.migrator, roles.app, roles.backup)
    template = Database(
        name=f"template_{secrets.token_hex(4)}",
        server_url=server_url,
        roles=roles,
        passwords={role_name: secrets.token_urlsafe() for role_name in logins},
        tenant_secret=secrets.token_urlsafe(32),
    )
    _refuse_real_installation(server_url, roles)
    with _created(template):
        _prepare(template, migrations)
        for slug in slugs:
            make_tenant(template, migrations, slug, settings.get(slug, {}))
        try:
            yield template
        finally:
            _drop_tenant_roles(template)
    _drop_service_roles(server_url, roles)


@contextmanager
def copy_of(template: Database) -> Iterator[Database]:
    """A database with the template's content, dropped afterwards with the roles of tenants that were added to it."""
    copy = Database(
        name=f"test_{secrets.token_hex(4)}",
        server_url=template.server_url,
        roles=template.roles,
        passwords=template.passwords,
        tenant_secret=template.tenant_secret,
    )
    kept = {tenant.role_name for tenant in _tenants_of(template)}
    with _created(copy, template.name):
        # PostgreSQL does not copy the rights on a database, only those in it.
        with _superuser_engine(copy).begin() as connection:
            revoke_public_privileges(connection, copy.roles)
        try:
            yield copy
        finally:
            copy.close()
            _drop_tenant_roles(copy, except_for=kept)


def make_tenant(database: Database, migrations: Migrations, slug: str, settings: Mapping[str, Any]) -> Tenant:
    """Provision a tenant for a test, as the script would. Its role is dropped with its database."""
    return provision(
        database.admin_engine(),
        migrations,
        slug=slug,
        name=slug,
        settings=settings,
        tenant_secret=database.tenant_secret,
    )


def _prepare(template: Database, migrations: Migrations) -> None:
    """The service's roles, and the shared schema."""
    with _superuser_engine(template).begin() as connection:
        create_service_roles(connection, template.roles, dict(template.passwords))
        create_pool_role(connection, template.roles, pool_password(template.tenant_secret))
        connection.exec_driver_sql(f"COMMENT ON ROLE {template.roles.owner} IS '{MADE_BY_US}'")
    outcome = migrations.migrate_shared(template.admin_engine())
    if outcome.error:
        pytest.exit(f"The shared schema can't be migrated: {outcome.error}", returncode=1)


def _tenants_of(database: Database) -> list[Tenant]:
    tenants = database.tenants()
    database.close()
    return tenants


@contextmanager
def _created(database: Database, template: str = "template1") -> Iterator[None]:
    name = sql.Identifier(database.name)
    with psycopg.connect(database.server_url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, sql.Identifier(template)))
    try:
        yield
    finally:
        with psycopg.connect(database.server_url, autocommit=True) as server:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def _superuser_engine(database: Database) -> sa.Engine:
    url = sa.make_url(database.url()).set(drivername="postgresql+psycopg")
    return sa.create_engine(url, poolclass=sa.NullPool)


def _refuse_real_installation(server_url: str, roles: ServiceRoles) -> None:
    """Roles belong to the whole server: on one that has an installation, the tests would change its passwords."""
    query = (
        "SELECT pg_catalog.shobj_description(oid, 'pg_authid') IS NOT DISTINCT FROM %s FROM pg_catalog.pg_roles"
        " WHERE rolname = %s"
    )
    with psycopg.connect(server_url) as server:
        row = server.execute(query, (MADE_BY_US, roles.owner)).fetchone()
    if row and not row[0]:
        pytest.exit(f"{roles.owner} exists on this server and is not ours: give the tests a server of their own.", 2)


def _drop_tenant_roles(database: Database, except_for: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Drop what the tenants of this database hold in it, and then their roles."""
    with _superuser_engine(database).begin() as connection:
        for tenant in all_tenants(connection):
            if tenant.role_name not in except_for and role_exists(connection, tenant.role_name):
                role = sql.Identifier(tenant.role_name)
                connection.exec_driver_sql(sql.SQL("DROP OWNED BY {}").format(role).as_string())
                connection.exec_driver_sql(sql.SQL("DROP ROLE {}").format(role).as_string())


def _drop_service_roles(server_url: str, roles: ServiceRoles) -> None:
    with psycopg.connect(server_url, autocommit=True) as server:
        for role_name in (roles.migrator, roles.app, roles.backup, roles.tenants, roles.pool, roles.owner):
            server.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role_name)))
