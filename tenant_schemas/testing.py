"""A pytest plugin: real databases with two tenants in them, fast, and `assert_isolated`.

The template is made once a session, by the same functions that make a real installation; a test that breaks things
takes a copy of it (`fresh_database`), all others share one (`database`). The server is an embedded one that is thrown
away, or the one in TEST_DATABASE_URL (a superuser's URL), on which everything made is dropped again.

An application gives three session fixtures: `tenancy_migrations` (its Migrations), and, if these defaults don't suit
it, `tenant_slugs` and `tenant_settings`.
"""

import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
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
from tenant_schemas.migrations import Migrations
from tenant_schemas.provisioning import provision
from tenant_schemas.registry import all_tenants, get_tenant
from tenant_schemas.roles import (
    ServiceRoles,
    close_database,
    create_service_roles,
    open_pool,
    pool_password,
    role_exists,
    tenant_password,
)
from tenant_schemas.tenant import Tenant

MADE_BY_US = "made by tenant_schemas.testing"
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


@pytest.fixture(scope="session")
def tenant_slugs() -> tuple[str, str]:
    """The two tenants that every database has."""
    return ("eur", "km")


@pytest.fixture(scope="session")
def tenant_settings() -> Mapping[str, Mapping[str, Any]]:
    """Their settings, by slug."""
    return {}


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A superuser's URL on a server for the tests alone."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="tenant-schemas-") as folder:
        server = embedded.start(Path(folder), FAST_SETTINGS)
        try:
            yield server.superuser_url()
        finally:
            server.release()


@pytest.fixture(scope="session")
def template(
    server_url: str,
    tenancy_migrations: Migrations,
    tenant_slugs: tuple[str, str],
    tenant_settings: Mapping[str, Mapping[str, Any]],
) -> Iterator[Database]:
    """A prepared database with two tenants. Never connect to it: copies are made from it."""
    roles = tenancy_migrations.roles
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
        with _superuser_engine(template).begin() as connection:
            create_service_roles(connection, roles, dict(template.passwords))
            open_pool(connection, roles, pool_password(template.tenant_secret))
            connection.exec_driver_sql(f"COMMENT ON ROLE {roles.owner} IS '{MADE_BY_US}'")
        outcome = tenancy_migrations.migrate_shared(template.admin_engine())
        if outcome.error:
            pytest.exit(f"The shared schema can't be migrated: {outcome.error}", returncode=1)
        for slug in tenant_slugs:
            make_tenant(template, tenancy_migrations, slug, tenant_settings.get(slug, {}))
        try:
            yield template
        finally:
            _drop_tenant_roles(template)
    _drop_service_roles(server_url, roles)


@pytest.fixture(scope="session")
def database(template: Database) -> Iterator[Database]:
    """The database that tests share. They make their own users and look at those only."""
    with copy_of(template) as database:
        yield database


@pytest.fixture
def fresh_database(template: Database) -> Iterator[Database]:
    """A database of this test's own, to break."""
    with copy_of(template) as database:
        yield database


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
            close_database(connection, copy.roles)
        try:
            yield copy
        finally:
            copy.close()
            _drop_tenant_roles(copy, except_for=kept)


# What the asking role may do with anything in a schema, by PostgreSQL's own account.
_REACH = """
    SELECT 'table ' || c.relname FROM pg_catalog.pg_class c
    WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
        AND (has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
            OR has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE, REFERENCES'))
    UNION ALL
    SELECT 'function ' || p.proname FROM pg_catalog.pg_proc p
    WHERE p.pronamespace = %(schema)s::regnamespace AND has_function_privilege(p.oid, 'EXECUTE')
    UNION ALL
    SELECT 'CREATE in the schema' WHERE has_schema_privilege(%(schema)s, 'CREATE')
    UNION ALL
    SELECT 'the role' WHERE pg_has_role(%(role)s, 'MEMBER')"""


def assert_isolated(database: Database, slug: str, other_slug: str) -> None:
    """Log in as one tenant and try to reach the other: its role, its schema and all that is in it, its shared rows.

    Asks PostgreSQL what it would allow, and tries the doors; every attempt must be refused for want of privilege
    (42501), not by an accident on the way. Raises AssertionError, or pytest's own failure.
    """
    own, other = database.tenant(slug), database.tenant(other_slug)
    connection = database.as_tenant(slug)
    role, schema = sql.Identifier(other.role_name), sql.Identifier(other.schema_name)
    tables = _tables_of(database, other)
    for attempt in (
        sql.SQL("SET ROLE {}").format(role),
        sql.SQL("SET SESSION AUTHORIZATION {}").format(role),
        sql.SQL("CREATE TABLE {}.intruder ()").format(schema),
        *(sql.SQL("TABLE {}").format(sql.Identifier(other.schema_name, table)) for table in tables),
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(attempt)
    within_reach = connection.execute(_REACH, {"schema": other.schema_name, "role": other.role_name}).fetchall()
    if within_reach:
        raise AssertionError(f"{slug} reaches in {other_slug}: {', '.join(thing for (thing,) in within_reach)}")
    for table, column in (("tenants", "id"), *((name, "tenant_id") for name in _shared_tables_of_tenants(connection))):
        rows = sql.SQL("SELECT FROM shared.{} WHERE {} <> %s").format(sql.Identifier(table), sql.Identifier(column))
        if connection.execute(rows, (own.id,)).fetchall():
            raise AssertionError(f"{slug} sees rows of other tenants in shared.{table}")


def _shared_tables_of_tenants(connection: psycopg.Connection[TupleRow]) -> list[str]:
    """The tables of `shared` that this role may read and whose rows say whose they are."""
    query = """
        SELECT c.relname FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
        WHERE c.relnamespace = 'shared'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
            AND has_table_privilege(c.oid, 'SELECT')"""
    return [name for (name,) in connection.execute(query)]


def _tables_of(database: Database, tenant: Tenant) -> list[str]:
    query = "SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = %s ORDER BY tablename"
    tables = [name for (name,) in database.as_superuser().execute(query, (tenant.schema_name,))]
    if not tables:
        raise AssertionError(f"{tenant.schema_name} has no tables, so nothing can be proved with it")
    return tables


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
