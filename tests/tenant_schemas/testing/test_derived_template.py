"""Copies of a derived template are equal, whatever a test did to its tenants' roles, and parked roles block no name."""

from collections.abc import Callable, Iterator

import psycopg
import pytest

from tenant_schemas.migrations.history import Migrations
from tenant_schemas.testing.derived_template import DerivedTemplate
from tenant_schemas.testing.plugin import Database, copy_of, make_tenant

pytestmark = [pytest.mark.both_servers, pytest.mark.changes_roles]

PREPARED = ["added", "eur", "km"]


@pytest.fixture
def add_tenant(
    tenancy_migrations: Migrations, tenant_settings: dict[str, dict[str, str]]
) -> Callable[[Database], None]:
    return lambda database: void(make_tenant(database, tenancy_migrations, "added", tenant_settings["km"]))


def void(_: object) -> None:
    pass


class Counting:
    """Adds a tenant, and counts its calls."""

    def __init__(self, add: Callable[[Database], None]) -> None:
        self.add, self.count = add, 0

    def __call__(self, database: Database) -> int:
        self.count += 1
        self.add(database)
        return self.count


@pytest.fixture
def prepare(add_tenant: Callable[[Database], None]) -> Counting:
    return Counting(add_tenant)


@pytest.fixture
def derived(template: Database, prepare: Counting) -> Iterator[DerivedTemplate[int]]:
    derived = DerivedTemplate(template, prepare)
    yield derived
    derived.close()


def slugs(database: Database) -> list[str]:
    return [tenant.slug for tenant in database.tenants()]


def group(database: Database) -> list[str]:
    """The members of the tenants' group."""
    query = """
        SELECT member::regrole::text FROM pg_auth_members WHERE roleid = to_regrole(%s) AND member <> to_regrole(%s)
        ORDER BY 1"""
    with psycopg.connect(database.server_url) as superuser:
        return [name for (name,) in superuser.execute(query, (database.roles.tenants, database.roles.migrator))]


def test_each_copy_has_what_was_prepared_once_and_nothing_of_the_copy_before(
    derived: DerivedTemplate[int], prepare: Counting
) -> None:
    for _ in range(2):
        with derived.copy() as copy:
            assert (derived.made, slugs(copy), group(copy)) == (
                1,
                PREPARED,
                ["tenant_added", "tenant_eur", "tenant_km"],
            )
            assert copy.as_tenant("added").execute("SELECT current_schema()").fetchone() == ("added_schema",)
            copy.as_superuser().execute("DROP SCHEMA added_schema CASCADE")
    assert prepare.count == 1


def test_between_copies_the_tenants_names_are_free_and_no_role_of_theirs_is_a_tenants(
    template: Database, derived: DerivedTemplate[int], add_tenant: Callable[[Database], None]
) -> None:
    with derived.copy():
        pass
    with copy_of(template) as database:
        assert group(database) == ["tenant_eur", "tenant_km"]
        add_tenant(database)
        database.as_tenant("added").execute("SELECT 1")
    with derived.copy() as copy:
        copy.as_tenant("added").execute("SELECT 1")


# What a test may do to the role, and whether it can be mended.
CHANGES = {
    "another password": ("ALTER ROLE tenant_added PASSWORD 'guessed'", True),
    "no login": ("ALTER ROLE tenant_added NOLOGIN", True),
    "another name": ("ALTER ROLE tenant_added RENAME TO tenant_moved", True),
    "another path": ("ALTER ROLE tenant_added SET search_path TO km_schema", True),
    "out of the group": ("SET SESSION AUTHORIZATION wallet_migrator; REVOKE wallet_tenants FROM tenant_added", True),
    "in another group": ("GRANT pg_monitor TO tenant_added", False),
    "a power": ("ALTER ROLE tenant_added CREATEROLE", False),
}


@pytest.mark.parametrize(("change", "is_mended"), CHANGES.values(), ids=CHANGES)
def test_whatever_a_test_does_to_the_role_the_next_copy_has_it_as_it_was(
    derived: DerivedTemplate[int], prepare: Counting, change: str, is_mended: bool
) -> None:
    with derived.copy() as copy:
        with psycopg.connect(copy.url()) as superuser:
            superuser.execute(change)  # type: ignore[arg-type]
        if "RENAME" in change:
            renamed = "UPDATE shared.tenants SET slug = 'moved', role_name = 'tenant_moved' WHERE slug = 'added'"
            copy.as_superuser().execute(renamed)
    with derived.copy() as copy:
        tenant = copy.as_tenant("added")
        assert tenant.execute("SELECT current_user::text, current_schema()").fetchone() == (
            "tenant_added",
            "added_schema",
        )
        tenant.execute("SELECT count(*) FROM wallets")
        assert group(copy) == ["tenant_added", "tenant_eur", "tenant_km"]
    assert prepare.count == (1 if is_mended else 2)


def test_the_role_can_not_be_dropped_for_the_template_needs_it(derived: DerivedTemplate[int]) -> None:
    """A test that drops the role creates its own tenant."""
    with derived.copy() as copy, pytest.raises(psycopg.errors.DependentObjectsStillExist):
        copy.as_superuser().execute("DROP OWNED BY tenant_added; DROP ROLE tenant_added")


def test_nothing_of_it_stays(template: Database, derived: DerivedTemplate[int]) -> None:
    def there() -> tuple[set[str], set[str]]:
        with psycopg.connect(template.server_url) as superuser:
            databases = {name for (name,) in superuser.execute("SELECT datname FROM pg_database")}
            roles = {name for (name,) in superuser.execute("SELECT rolname FROM pg_roles")}
        return databases, roles

    before = there()
    with derived.copy() as copy:
        assert copy.name in there()[0]
    assert there() != before
    derived.close()
    assert there() == before
