"""Throw-away databases, made by the functions that make a real installation: a template with its tenants, made once,
and copies of it.

Everything is dropped afterwards: databases, the tenants' roles, the service's roles. A server with a real installation
is refused.
"""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from time import monotonic, sleep
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from psycopg.rows import TupleRow

from tenant_schemas.errors import TenantNotFound
from tenant_schemas.lifecycle.provision import provision
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.registry import COLUMNS, tenant_from_row
from tenant_schemas.roles import (
    ServiceRoles,
    create_pool_role,
    create_service_roles,
    pool_password,
    restrict_connections,
    tenant_password,
)
from tenant_schemas.tenant import Tenant, role_name_of

MADE_BY_US = "made by tenant_schemas.testing.plugin"
SESSION_END_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Database:
    """One database of the test server, and connections to it as any role."""

    name: str
    server_url: str
    roles: ServiceRoles
    passwords: Mapping[str, str]
    tenant_secret: str
    # The roles of the tenants that it was made with. Those of a template live as long as the template.
    first_roles: frozenset[str]
    _open: list[psycopg.Connection[TupleRow]] = field(default_factory=list)

    @classmethod
    def from_json(cls, text: str, server_url: str) -> "Database":
        """A database of another process, on that server or on a copy of it."""
        told = json.loads(text)
        roles, first_roles = ServiceRoles(**told.pop("roles")), frozenset(told.pop("first_roles"))
        return cls(server_url=server_url, roles=roles, first_roles=first_roles, **told)

    def to_json(self) -> str:
        """The text for `from_json`. It contains passwords."""
        plain = {"name": self.name, "passwords": dict(self.passwords), "tenant_secret": self.tenant_secret}
        return json.dumps(plain | {"roles": asdict(self.roles), "first_roles": sorted(self.first_roles)})

    def url(self, role_name: str | None = None, password: str | None = None) -> str:
        """The URL of a login; of the superuser without a name."""
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
        """Every tenant of any status, by slug."""
        with psycopg.connect(self.url()) as superuser:
            found = superuser.execute(f"SELECT {COLUMNS} FROM shared.tenants t ORDER BY t.slug".encode())  # noqa: S608
            return [tenant_from_row(row) for row in found]

    def tenant(self, slug: str) -> Tenant:
        """The tenant of any status with this slug. Raises TenantNotFound."""
        for tenant in self.tenants():
            if tenant.slug == slug:
                return tenant
        raise TenantNotFound(f"There is no tenant {slug!r}.")

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
        """Close every connection that this object opened."""
        while self._open:
            self._open.pop().close()

    def _connect(self, url: str) -> psycopg.Connection[TupleRow]:
        connection = psycopg.connect(url, autocommit=True)
        self._open.append(connection)
        return connection


@contextmanager
def made_template(
    server_url: str, migrations: Migrations, slugs: Sequence[str], settings: Mapping[str, Mapping[str, Any]]
) -> Iterator[Database]:
    """A prepared database with these tenants. Never connect to it: tests use copies of it.

    A server has one template, because the service's and the tenants' roles belong to the whole server.
    """
    template = make_template(server_url, migrations, slugs, settings)
    try:
        yield template
    finally:
        drop_template(template)


def make_template(
    server_url: str, migrations: Migrations, slugs: Sequence[str], settings: Mapping[str, Mapping[str, Any]]
) -> Database:
    """Make the template of `made_template`. `drop_template` drops it."""
    roles = migrations.roles
    logins = (roles.migrator, roles.app, roles.backup, roles.relay)
    template = Database(
        name=f"template_{secrets.token_hex(4)}",
        server_url=server_url,
        roles=roles,
        passwords={role_name: secrets.token_urlsafe() for role_name in logins},
        tenant_secret=secrets.token_urlsafe(32),
        first_roles=frozenset(map(role_name_of, slugs)),
    )
    _refuse_real_installation(server_url, roles)
    with administering(server_url) as server:
        run_on(server, "CREATE DATABASE {}", template.name)
    try:
        _prepare(template, migrations)
        for slug in slugs:
            make_tenant(template, migrations, slug, settings.get(slug, {}))
    except BaseException:
        drop_template(template)
        raise
    return template


def drop_template(template: Database) -> None:
    """Drop the template, the roles of its tenants, also of those added later, and the service's roles."""
    roles = template.roles
    _drop(template, template.first_roles | _tenant_roles_of(template))
    with administering(template.server_url) as server:
        for role_name in (roles.migrator, roles.app, roles.backup, roles.relay, roles.tenants, roles.pool, roles.owner):
            run_on(server, "DROP ROLE IF EXISTS {}", role_name)
    forget_server(template.server_url)


@contextmanager
def copy_of(template: Database) -> Iterator[Database]:
    """A copy of the template, dropped afterwards with the roles of tenants that were added to it."""
    copy = replace(template, name=f"test_{secrets.token_hex(4)}", _open=[])
    with administering(copy.server_url) as server:
        # Copying files is faster than the default, which writes every page to the WAL.
        run_on(server, "CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", copy.name, template.name)
        restrict_connections(server, copy.roles, copy.name)
    try:
        yield copy
    finally:
        copy.close()
        _drop(copy, _tenant_roles_of(copy) - copy.first_roles)


def forget_server(server_url: str) -> None:
    """Close the cached connection to the server. The next call of this module opens a new one."""
    _administrator(server_url).dispose()


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
    """Create the service's roles and the shared schema."""
    with _superuser_engine(template).begin() as connection:
        create_service_roles(connection, template.roles, dict(template.passwords))
        create_pool_role(connection, template.roles, pool_password(template.tenant_secret))
        connection.exec_driver_sql(f"COMMENT ON ROLE {template.roles.owner} IS '{MADE_BY_US}'")
    outcome = migrations.migrate_shared(template.admin_engine())
    if outcome.error:
        pytest.exit(f"The shared schema can't be migrated: {outcome.error}", returncode=1)


@cache
def _administrator(server_url: str) -> sa.Engine:
    """Caches one connection to the server's own database, which creates and drops every copy."""
    url = sa.make_url(server_url).set(drivername="postgresql+psycopg")
    return sa.create_engine(url, pool_size=1, pool_pre_ping=True, isolation_level="AUTOCOMMIT")


@contextmanager
def administering(server_url: str) -> Iterator[sa.Connection]:
    """A superuser's connection to the server's own database, in autocommit."""
    with _administrator(server_url).connect() as server:
        yield server


def run_on(server: sa.Connection, statement: str, *names: str) -> None:
    """Run the statement with these names in place of its `{}`."""
    server.exec_driver_sql(sql.SQL(statement).format(*map(sql.Identifier, names)).as_string())


def _tenant_roles_of(database: Database) -> set[str]:
    """The roles of the tenants in the database's registry; none before the shared schema exists."""
    with psycopg.connect(database.url()) as superuser:
        if superuser.execute("SELECT to_regclass('shared.tenants')").fetchone() == (None,):
            return set()
        return {role_name for (role_name,) in superuser.execute("SELECT role_name FROM shared.tenants")}


def _drop(database: Database, role_names: Set[str]) -> None:
    """Drop the database, and then these roles, which have privileges in no other database."""
    with administering(database.server_url) as server:
        _end_sessions(server, database.name)
        run_on(server, "DROP DATABASE {} WITH (FORCE)", database.name)
        for role_name in role_names:
            run_on(server, "DROP ROLE IF EXISTS {}", role_name)


def _end_sessions(server: sa.Connection, database_name: str) -> None:
    """DROP DATABASE ends sessions too, but sleeps 100 ms before it checks again."""
    query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s"
    deadline = monotonic() + SESSION_END_SECONDS
    while server.exec_driver_sql(query, (database_name,)).scalar_one() and monotonic() < deadline:
        sleep(0.002)


def _superuser_engine(database: Database) -> sa.Engine:
    url = sa.make_url(database.url()).set(drivername="postgresql+psycopg")
    return sa.create_engine(url, poolclass=sa.NullPool)


def _refuse_real_installation(server_url: str, roles: ServiceRoles) -> None:
    """Exit on a server with a real installation: roles belong to the whole server, so the tests would change its
    passwords.
    """
    query = (
        "SELECT pg_catalog.shobj_description(oid, 'pg_authid') IS NOT DISTINCT FROM %s FROM pg_catalog.pg_roles"
        " WHERE rolname = %s"
    )
    with psycopg.connect(server_url) as server:
        row = server.execute(query, (MADE_BY_US, roles.owner)).fetchone()
    if row and not row[0]:
        pytest.exit(f"{roles.owner} is a real installation's: give the tests a server of their own.", 2)
