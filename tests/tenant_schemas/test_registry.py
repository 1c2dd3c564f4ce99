"""One row for every tenant: read by all, written only by the functions here, committed by their caller."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from tenant_schemas import registry
from tenant_schemas.connections import Connections
from tenant_schemas.errors import TenantNotFound
from tenant_schemas.roles import become_owner
from tenant_schemas.tenant import Tenant, TenantStatus
from tenant_schemas.testing.plugin import Database


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """The migrator's, acting as the owner, in a db transaction that is rolled back."""
    with database.admin_engine().connect() as connection, connection.begin() as transaction:
        become_owner(connection, database.roles)
        yield connection
        transaction.rollback()


def tenant_named(slug: str) -> Tenant:
    settings = {"currency": "EUR", "nested": {"list": [1, None, "ü"]}}
    return Tenant(uuid4(), slug, f"{slug}_schema", f"tenant_{slug}", "Ünï", TenantStatus.ACTIVE, 1, "0001", settings)


def test_all_tenants_come_by_slug_and_in_any_status(connection: Connection) -> None:
    for slug, status in (("zz", TenantStatus.ARCHIVED), ("aa", TenantStatus.SUSPENDED)):
        registry.add_tenant(connection, replace(tenant_named(slug), status=status))
    tenants = registry.all_tenants(connection)
    assert [(tenant.slug, tenant.status.value) for tenant in tenants] == [
        ("aa", "suspended"),
        ("eur", "active"),
        ("km", "active"),
        ("zz", "archived"),
    ]


def test_a_tenant_is_read_as_it_was_added(connection: Connection) -> None:
    """Each field in its own column, including the settings."""
    added = tenant_named("probe")
    registry.add_tenant(connection, added)
    assert registry.get_tenant(connection, "probe") == added
    assert registry.lock_tenant(connection, added.id) == added
    assert added in registry.all_tenants(connection)


@pytest.mark.parametrize("slug", ["unknown", "", "EUR", "eur ", "eur'; DROP TABLE shared.tenants; --", "%"])
def test_who_is_not_registered_is_not_found(connection: Connection, slug: str) -> None:
    with pytest.raises(TenantNotFound):
        registry.get_tenant(connection, slug)


def test_an_unknown_id_can_not_be_locked(connection: Connection) -> None:
    with pytest.raises(TenantNotFound):
        registry.lock_tenant(connection, uuid4())


def test_status_and_revision_change_for_one_tenant_only(connection: Connection) -> None:
    eur, km = registry.get_tenant(connection, "eur"), registry.get_tenant(connection, "km")
    registry.set_status(connection, eur.id, TenantStatus.SUSPENDED)
    registry.set_revision(connection, eur.id, "0099")
    assert registry.get_tenant(connection, "eur") == replace(eur, status=TenantStatus.SUSPENDED, revision="0099")
    assert registry.get_tenant(connection, "km") == km


def test_nothing_here_commits(database: Database) -> None:
    before = database.tenants()
    with database.admin_engine().connect() as connection, connection.begin() as transaction:
        become_owner(connection, database.roles)
        registry.add_tenant(connection, tenant_named("probe"))
        registry.set_status(connection, before[0].id, TenantStatus.ARCHIVED)
        registry.set_revision(connection, before[1].id, "0099")
        transaction.rollback()
    assert database.tenants() == before


def test_a_locked_tenant_waits_for_its_writer_and_can_still_be_read(database: Database) -> None:
    """Other tenants are free. Requests that only read the row, or add a member to it, do not wait."""
    eur, km = database.tenant("eur"), database.tenant("km")
    with database.admin_engine().begin() as holder:
        become_owner(holder, database.roles)
        registry.lock_tenant(holder, eur.id)
        with database.admin_engine().connect() as other, other.begin() as transaction:
            become_owner(other, database.roles)
            other.exec_driver_sql("SET LOCAL lock_timeout TO 100")
            assert registry.get_tenant(other, "eur") == eur
            other.exec_driver_sql("SELECT 1 FROM shared.tenants WHERE id = %s FOR KEY SHARE", (eur.id,))
            registry.set_revision(other, km.id, km.revision)
            with pytest.raises(OperationalError, match="LockNotAvailable"):
                registry.lock_tenant(other, eur.id)
            transaction.rollback()


@pytest.mark.parametrize(
    ("changed", "constraint"),
    [
        ({"slug": "eur", "role_name": "tenant_eur"}, "tenants_slug_key"),
        ({"schema_name": "km_schema"}, "tenants_schema_name_key"),
        ({"slug": "Probe", "role_name": "tenant_Probe"}, "tenants_slug_is_a_name"),
        ({"slug": "p" * 33, "role_name": f"tenant_{'p' * 33}"}, "tenants_slug_is_a_name"),
        ({"slug": "probe\n", "role_name": "tenant_probe\n"}, "tenants_slug_is_a_name"),
        ({"schema_name": "probe; --"}, "tenants_schema_name_is_a_name"),
        ({"role_name": "tenant_eur"}, "tenants_role_follows_slug"),
        ({"role_name": "wallet_owner"}, "tenants_role_follows_slug"),
        ({"status": "deleted"}, "tenants_status_known"),
        ({"login_epoch": 0}, "tenants_login_epoch_positive"),
    ],
)
def test_postgresql_itself_refuses_a_row_that_breaks_the_rule(
    connection: Connection, changed: dict[str, str], constraint: str
) -> None:
    with pytest.raises(IntegrityError, match=constraint):
        registry.add_tenant(connection, replace(tenant_named("probe"), **changed))


Write = Callable[[Connection], object]


def test_a_tenant_writes_nothing_in_the_registry_and_the_service_neither_names_nor_revisions(
    database: Database,
) -> None:
    """The service may set a tenant's status, settings and display name for its operators."""
    connections = Connections(database.app_url, database.tenant_secret)
    eur = database.tenant("eur")
    nobodys: tuple[Write, ...] = (
        lambda connection: registry.add_tenant(connection, tenant_named("probe")),
        lambda connection: registry.set_revision(connection, eur.id, "0099"),
        lambda connection: registry.increment_login_epoch(connection, eur.id),
    )
    the_services: tuple[Write, ...] = (
        lambda connection: registry.set_status(connection, eur.id, TenantStatus.ARCHIVED),
        lambda connection: registry.change_settings(connection, eur.id, {"currency": "XXX"}),
        lambda connection: registry.lock_tenant(connection, eur.id),
    )
    try:
        for write in nobodys:
            refused(connections.shared, write)
        for write in (*nobodys, *the_services):
            refused(connections.engine(eur), write)
        for write in the_services:
            with connections.shared.connect() as connection, connection.begin() as db_transaction:
                write(connection)
                db_transaction.rollback()
    finally:
        connections.close()


def refused(engine: Engine, write: Write) -> None:
    with pytest.raises(ProgrammingError, match="InsufficientPrivilege"), engine.begin() as connection:
        write(connection)
