"""Tenants of a test's own, and the rows and objects that a tenant has in the database."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from app.tenancy import RESERVED_SLUGS
from tenant_schemas.lifecycle.archive import archive
from tenant_schemas.lifecycle.rename import rename
from tenant_schemas.migrations.history import Migrations, set_timeouts
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing.plugin import Database, DerivedTemplate, make_tenant

BAM = {"currency": "BAM"}


@pytest.fixture(scope="session")
def mark_template(template: Database, tenancy_migrations: Migrations) -> Iterator[DerivedTemplate[Tenant]]:
    """The template with the tenant `mark`."""
    with closing(
        DerivedTemplate(template, lambda added: make_tenant(added, tenancy_migrations, "mark", BAM))
    ) as derived:
        yield derived


@pytest.fixture
def mark(fresh_database: Database, mark_template: DerivedTemplate[Tenant]) -> Tenant:
    """A tenant of this database only: the roles of eur and km are shared by all tests."""
    return fresh_database.tenant(mark_template.made.slug)


def archive_tenant(database: Database, slug: str = "mark") -> None:
    """Archive the tenant."""
    with database.admin_engine().begin() as connection:
        archive(connection, slug)


def renamed(database: Database, new_slug: str = "bam", slug: str = "mark", **options: Any) -> Tenant:
    """Rename the tenant, and commit."""
    with database.admin_engine().begin() as connection:
        set_timeouts(connection)
        return rename(connection, database.roles, slug, new_slug, reserved_slugs=RESERVED_SLUGS, **options)


def traces(database: Database, tenant: Tenant) -> list[Any]:
    """The tenant's objects in the catalogue, rows in `shared` and roles."""
    server = database.as_superuser()
    found = [
        row
        for query in (
            "SELECT nspname FROM pg_namespace WHERE nspname = %(schema)s",
            "SELECT rolname FROM pg_roles WHERE rolname = %(role)s",
            "SELECT slug FROM shared.tenants WHERE id = %(id)s",
            "SELECT user_id FROM shared.memberships WHERE tenant_id = %(id)s",
            "SELECT id FROM shared.sessions WHERE tenant_id = %(id)s",
            "SELECT id FROM shared.api_keys WHERE tenant_id = %(id)s",
            "SELECT schema_name FROM shared.spare_schemas WHERE tenant_id = %(id)s",
        )
        for row in server.execute(
            query, {"schema": tenant.schema_name, "role": tenant.role_name, "id": tenant.id}
        ).fetchall()
    ]
    return [each for (each,) in found]


def everything(database: Database) -> Any:
    """Everything that a refused rename leaves unchanged."""
    server = database.as_superuser()
    names = server.execute("SELECT nspname::text FROM pg_namespace UNION ALL SELECT rolname::text FROM pg_roles")
    paths = server.execute("SELECT oid, proconfig FROM pg_proc WHERE proconfig IS NOT NULL ORDER BY oid").fetchall()
    return database.tenants(), sorted(names.fetchall()), paths
