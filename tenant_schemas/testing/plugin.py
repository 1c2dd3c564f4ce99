"""A pytest plugin: fast, real databases with two tenants, and `assert_isolated`.

The template is made once, by the functions that make a real installation. A test that breaks things takes a copy of it
(`fresh_database`); all others share one (`database`). The server is an embedded one that is thrown away, or the one in
TEST_DATABASE_URL (a superuser's URL), on which everything is dropped afterwards.

An application defines the session fixture `tenancy_migrations` (its Migrations), and `tenant_slugs` and
`tenant_settings` if the defaults do not fit.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import TupleRow

from tenant_schemas.migrations.history import Migrations
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing.databases import Database, copy_of, made_template, make_template, make_tenant
from tenant_schemas.testing.derived_template import DerivedTemplate
from tenant_schemas.testing.folders import keep_temporary_files_in_memory, remove_abandoned_folders
from tenant_schemas.testing.servers import own_template, running_embedded, shared_template
from tenant_schemas.testing.shared_server_lock import MARKER, SharedServerLock

GIVEN: Final = "TEST_DATABASE_URL"
WORKER: Final = "PYTEST_XDIST_WORKER"

__all__ = ["Database", "DerivedTemplate", "assert_isolated", "copy_of", "made_template", "make_tenant"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARKER}: runs alone on a server that several workers share.")
    given = os.environ.get(GIVEN)
    if WORKER not in os.environ:
        keep_temporary_files_in_memory()
        remove_abandoned_folders()
    elif given:
        config.pluginmanager.register(SharedServerLock(given))


@pytest.fixture(scope="session")
def tenant_slugs() -> tuple[str, str]:
    """The two tenants of every database."""
    return ("eur", "km")


@pytest.fixture(scope="session")
def tenant_settings() -> Mapping[str, Mapping[str, Any]]:
    """Their settings, by slug."""
    return {}


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all processes of this test run share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if WORKER in os.environ else folder


@pytest.fixture(scope="session")
def template_maker(
    tenancy_migrations: Migrations,
    tenant_slugs: tuple[str, str],
    tenant_settings: Mapping[str, Mapping[str, Any]],
) -> Callable[[str], Database]:
    """A function that makes the template on the server with this superuser's URL."""
    return partial(make_template, migrations=tenancy_migrations, slugs=tenant_slugs, settings=tenant_settings)


@pytest.fixture(scope="session")
def template(template_maker: Callable[[str], Database], run_folder: Path) -> Iterator[Database]:
    """A prepared database with two tenants. Never connect to it: tests use copies of it."""
    shared = run_folder / "template"
    given = os.environ.get(GIVEN)
    made = (
        shared_template(given, template_maker, shared)
        if given
        else own_template(running_embedded, template_maker, shared)
    )
    with made as template:
        yield template


@pytest.fixture(scope="session")
def database(template: Database) -> Iterator[Database]:
    """The database that tests share. Each test creates its own users and reads only those."""
    with copy_of(template) as database:
        yield database


@pytest.fixture
def fresh_database(request: pytest.FixtureRequest, template: Database) -> Iterator[Database]:
    """A database of this test's own: a copy of the template, or of the derived template that the test requests by a
    fixture whose name ends in `_template`.
    """
    names = [name for name in request.fixturenames if name.endswith("_template")]
    derived = [found for found in map(request.getfixturevalue, names) if isinstance(found, DerivedTemplate)]
    with derived[0].copy() if derived else copy_of(template) as database:
        yield database


# The privileges of the current role on all objects of a schema.
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
    """Log in as one tenant and try to reach the other: its role, its schema with all objects, its rows in `shared`.

    It asks PostgreSQL for every privilege, and makes attempts; each must fail with insufficient privilege (42501).
    Raises AssertionError, or pytest's own failure.
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
    """The tables of `shared` with a tenant_id that this role may read."""
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
        raise AssertionError(f"{tenant.schema_name} has no tables, so it proves nothing")
    return tables
