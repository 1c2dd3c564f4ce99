"""A tenant is made completely or not at all, whatever fails and whenever; and the same call can then be repeated."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from threading import Barrier
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from tenant_schemas import registry, roles
from tenant_schemas.connections import Connections
from tenant_schemas.errors import NameRefused, NotPrepared, ProvisioningError, TenancyError, TenantExists
from tenant_schemas.lifecycle import provision as provision_module
from tenant_schemas.lifecycle.provision import provision
from tenant_schemas.migrations import history
from tenant_schemas.migrations.history import History, Migrations
from tenant_schemas.roles import ServiceRoles
from tenant_schemas.tenant import Tenant, TenantStatus
from tenant_schemas.testing.plugin import Database, assert_isolated, copy_of

pytestmark = pytest.mark.changes_roles

SETTINGS = {"currency": "EUR"}
Make = Callable[..., Tenant]


class Fault(Exception):
    """A deliberate error."""


@pytest.fixture(scope="module")
def workshop(template: Database) -> Iterator[Database]:
    """The database of this file alone. Every test makes tenants with new names in it."""
    with copy_of(template) as workshop:
        yield workshop


@pytest.fixture
def slug() -> str:
    return f"t{uuid4().hex[:12]}"


@pytest.fixture
def make(tenancy_migrations: Migrations) -> Make:
    """`make(database, slug)` provisions a tenant; named arguments change how."""

    def make(database: Database, slug: str, **changed: Any) -> Tenant:
        arguments: dict[str, Any] = {"name": "Probe", "settings": SETTINGS, "tenant_secret": database.tenant_secret}
        engine, histories = changed.pop("engine", database.admin_engine()), changed.pop("histories", tenancy_migrations)
        return provision(engine, histories, slug=slug, **(arguments | changed))

    return make


def remains(database: Database, slug: str) -> list[str]:
    """The tenant's objects in the database: its role, the role's settings, its schema, its row."""
    query = """
        SELECT 'role' FROM pg_roles WHERE rolname = 'tenant_' || %(slug)s
        UNION ALL SELECT 'settings' FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole
            WHERE r.rolname = 'tenant_' || %(slug)s
        UNION ALL SELECT 'schema' FROM pg_namespace WHERE nspname = %(slug)s || '_schema'
        UNION ALL SELECT 'row' FROM shared.tenants WHERE slug = %(slug)s"""
    with psycopg.connect(database.url()) as superuser:
        return [thing for (thing,) in superuser.execute(query, {"slug": slug})]


WHOLE = ["role", "settings", "schema", "row"]


def assert_works(database: Database, tenant: Tenant) -> None:
    """A member opens a wallet and pays into it, through the tenant's own login."""
    connections = Connections(database.app_url, database.tenant_secret)
    try:
        (user_id,) = connections.shared.one_statement(
            "INSERT INTO shared.users (email, name) VALUES (%s, '') RETURNING id", (f"{uuid4().hex}@example.com",)
        )[0]
        connections.shared.one_statement(
            "INSERT INTO shared.memberships (tenant_id, user_id, tenant_role, role) VALUES (%s, %s, %s, 'member')"
            " RETURNING 1",
            (tenant.id, user_id, tenant.role_name),
        )
        own = connections.engine(tenant)
        wallet_id = own.one_statement("SELECT (wallet).id FROM wallet_open_v1(%s, 'EUR')", (user_id,))[0][0]
        own.one_statement(
            "SELECT 1 FROM wallet_post_v1(%s, 'deposit', 100, 'key', NULL, NULL, NULL, NULL, NULL, NULL)", (wallet_id,)
        )
        balances = own.one_statement(f"SELECT balance_minor FROM {tenant.schema_name}.wallets", ())  # type: ignore[arg-type]
        assert balances == [(100,)]
    finally:
        connections.close()


def test_a_tenant_is_made_whole_and_works_at_once(
    workshop: Database, slug: str, make: Make, tenancy_migrations: Migrations
) -> None:
    tenant = make(workshop, slug, name="Ünï", settings={"currency": "EUR", "x": [1]})
    assert tenant == workshop.tenant(slug)
    assert (tenant.schema_name, tenant.role_name) == (f"{slug}_schema", f"tenant_{slug}")
    assert (tenant.status, tenant.login_epoch, tenant.name) == (TenantStatus.ACTIVE, 1, "Ünï")
    assert tenant.revision == tenancy_migrations.head(History.TENANT)
    assert remains(workshop, slug) == WHOLE
    assert_works(workshop, tenant)
    assert_isolated(workshop, slug, "km")
    assert_isolated(workshop, "km", slug)


def test_a_schema_name_of_ones_own_works_from_end_to_end(workshop: Database, slug: str, make: Make) -> None:
    schema_name = f"vault_{slug}"
    tenant = make(workshop, slug, schema_name=schema_name)
    assert tenant.schema_name == schema_name
    assert tenant == workshop.tenant(slug)
    assert remains(workshop, slug) == ["role", "settings", "row"]  # No schema of the default name.
    assert workshop.as_tenant(slug).execute("SELECT current_schema()").fetchone() == (schema_name,)
    assert_works(workshop, tenant)
    assert_isolated(workshop, slug, "eur")
    assert_isolated(workshop, "eur", slug)


# All or nothing.

STEPS: dict[str, tuple[object, str]] = {
    "checking the shared schema": (provision_module, "check_prepared"),
    "checking for taken names": (provision_module, "_check_names_free"),
    "deriving the password": (provision_module, "tenant_password"),
    "making the role": (provision_module, "create_tenant_role"),
    "becoming the owner": (provision_module, "become_owner"),
    "making the schema": (provision_module, "create_tenant_schema"),
    "migrating": (Migrations, "upgrade_tenant"),
    "registering": (registry, "add_tenant"),
}


def after(monkeypatch: pytest.MonkeyPatch, step: str, fault: Callable[..., None]) -> None:
    """Do the whole step and then the fault, the first time only: later calls are undisturbed."""
    owner, name = STEPS[step]
    real = getattr(owner, name)

    def disturbed(*arguments: Any) -> Any:
        result = real(*arguments)
        monkeypatch.setattr(owner, name, real)
        fault(*arguments)
        return result

    monkeypatch.setattr(owner, name, disturbed)


@pytest.mark.parametrize("step", STEPS)
def test_a_failure_after_any_step_leaves_nothing(
    workshop: Database, slug: str, monkeypatch: pytest.MonkeyPatch, step: str, make: Make
) -> None:
    def fail(*_: Any) -> None:
        raise Fault

    after(monkeypatch, step, fail)
    with pytest.raises(Fault):
        make(workshop, slug)
    assert remains(workshop, slug) == []
    assert make(workshop, slug) == workshop.tenant(slug)


@pytest.mark.parametrize("step", ["making the role", "making the schema", "registering"])
def test_a_backend_killed_after_any_step_leaves_nothing(
    workshop: Database, slug: str, monkeypatch: pytest.MonkeyPatch, step: str, make: Make
) -> None:
    def kill(*arguments: Any) -> None:
        connection = next(argument for argument in arguments if isinstance(argument, Connection))
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with psycopg.connect(workshop.url()) as superuser:
            assert superuser.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,)).fetchone() == (True,)

    after(monkeypatch, step, kill)
    with pytest.raises(OperationalError):
        make(workshop, slug)
    assert remains(workshop, slug) == []
    assert make(workshop, slug) == workshop.tenant(slug)


def test_a_failing_commit_leaves_nothing(workshop: Database, slug: str, make: Make) -> None:
    engine = workshop.admin_engine()

    @sa.event.listens_for(engine, "commit")
    def fail(_: Connection) -> None:
        raise Fault

    with pytest.raises(Fault):
        make(workshop, slug, engine=engine)
    assert remains(workshop, slug) == []
    assert make(workshop, slug) == workshop.tenant(slug)


def test_the_registry_row_is_the_last_thing_to_be_made(
    workshop: Database, slug: str, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    """During provisioning the tenant can't be resolved; another session sees all of it or none."""
    seen: list[list[str]] = []
    for step in STEPS:
        after(monkeypatch, step, lambda *_: seen.append(remains(workshop, slug)))
    order: list[str] = []
    engine = workshop.admin_engine()
    sa.event.listen(engine, "before_cursor_execute", lambda *arguments: order.append(arguments[2]))
    make(workshop, slug, engine=engine)
    assert seen == [[]] * len(STEPS)
    assert remains(workshop, slug) == WHOLE
    assert order[-1].startswith("INSERT INTO shared.tenants")


# Names that are taken.


def test_a_slug_is_taken_once(workshop: Database, slug: str, make: Make) -> None:
    first = make(workshop, slug)
    with pytest.raises(TenantExists, match=slug):
        make(workshop, slug)
    with pytest.raises(TenantExists, match=slug):
        make(workshop, slug, schema_name=f"other_{slug}")
    assert workshop.tenant(slug) == first
    assert_works(workshop, first)


def test_the_slug_of_a_tenant_that_is_put_away_is_taken_too(workshop: Database, slug: str, make: Make) -> None:
    """Its data is still there."""
    tenant = make(workshop, slug)
    with workshop.as_superuser() as superuser:
        superuser.execute("UPDATE shared.tenants SET status = 'archived' WHERE id = %s", (tenant.id,))
    with pytest.raises(TenantExists, match=slug):
        make(workshop, slug)


def test_a_schema_is_taken_once(workshop: Database, slug: str, make: Make) -> None:
    """Requested by name, or by a slug whose default name it is."""
    make(workshop, slug)
    with pytest.raises(TenantExists, match=slug):
        make(workshop, f"{slug}_2", schema_name=f"{slug}_schema")
    make(workshop, f"{slug}_3", schema_name=f"{slug}_4_schema")
    with pytest.raises(TenantExists, match=f"{slug}_3"):
        make(workshop, f"{slug}_4")
    assert remains(workshop, f"{slug}_2") == []
    assert "role" not in remains(workshop, f"{slug}_4")


def test_a_schema_of_nobodys_is_not_taken_over(workshop: Database, slug: str, make: Make) -> None:
    """Whatever it contains, it is not this tenant's. The advice in the error works."""
    with workshop.as_superuser() as superuser:
        superuser.execute(f"CREATE SCHEMA {slug}_schema")  # type: ignore[arg-type]
    with pytest.raises(TenantExists, match="choose another name"):
        make(workshop, slug)
    assert remains(workshop, slug) == ["schema"]
    assert make(workshop, slug, schema_name=f"{slug}_2") == workshop.tenant(slug)


def test_a_role_of_nobodys_is_not_taken_over(workshop: Database, slug: str, make: Make) -> None:
    """Its password may be known. The statement in the error's advice works as written."""
    with workshop.as_superuser() as superuser:
        superuser.execute(f"CREATE ROLE tenant_{slug} LOGIN PASSWORD 'known'")  # type: ignore[arg-type]
    with pytest.raises(TenantExists) as refused:
        make(workshop, slug)
    assert remains(workshop, slug) == ["role"]
    with workshop.as_superuser() as superuser:
        superuser.execute(str(refused.value).partition("If no other database uses it: ")[2])  # type: ignore[arg-type]
    assert make(workshop, slug) == workshop.tenant(slug)


def at_once(*calls: Callable[[], Tenant]) -> list[Tenant | TenancyError]:
    together = Barrier(len(calls), timeout=10)

    def run(call: Callable[[], Tenant]) -> Tenant | TenancyError:
        together.wait()
        try:
            return call()
        except TenancyError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_of_two_calls_for_one_slug_at_once_one_wins(workshop: Database, slug: str, make: Make) -> None:
    outcomes = at_once(*[lambda: make(workshop, slug)] * 3)
    (winner,) = (outcome for outcome in outcomes if isinstance(outcome, Tenant))
    assert sum(isinstance(outcome, TenantExists) for outcome in outcomes) == 2
    assert workshop.tenant(slug) == winner
    assert_works(workshop, winner)


def test_calls_for_different_slugs_at_once_all_win(workshop: Database, slug: str, make: Make) -> None:
    """Alembic's globals are not thread-safe; the lock on the registry serialises the calls."""
    outcomes = at_once(*[lambda number=number: make(workshop, f"{slug}_{number}") for number in range(2)])
    assert [type(outcome) for outcome in outcomes] == [Tenant, Tenant]
    assert {outcome.slug for outcome in outcomes} <= {tenant.slug for tenant in workshop.tenants()}


def test_a_call_waits_for_no_lock_for_long(
    workshop: Database, slug: str, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    """Sessions behind it in the lock queue would wait as long. So it fails, leaves nothing, and can be repeated."""
    monkeypatch.setattr(history, "LOCK_TIMEOUT_MS", 100)
    with ThreadPoolExecutor(1) as pool:
        with psycopg.connect(workshop.url()) as superuser:
            superuser.execute("LOCK TABLE shared.tenants IN ROW EXCLUSIVE MODE")
            call = pool.submit(make, workshop, slug)
            wait([call], timeout=5)
            ended_in_time = call.done()
        with pytest.raises(OperationalError, match="LockNotAvailable"):
            call.result()
    assert ended_in_time
    assert remains(workshop, slug) == []
    assert make(workshop, slug) == workshop.tenant(slug)


# Names.


@pytest.mark.parametrize(
    "slug",
    [
        *("pg_x", "shared", "public", "information_schema", "EUR", "Eur", "été", "еur", "x" * 33, "", " ", "1a", "a-b"),
        *('a"b', "a'b", "a;b", "a b", "a\n", "a\0b", "../a", "a.b", "wallet", "admin", "auth", "me"),
    ],
)
def test_a_name_outside_the_rule_is_refused_before_postgresql_is_asked(
    workshop: Database, slug: str, make: Make, reserved_slugs: frozenset[str]
) -> None:
    engine = workshop.admin_engine()
    sa.event.listen(engine, "connect", lambda *_: pytest.fail("PostgreSQL was asked"))
    with pytest.raises(NameRefused):
        make(workshop, slug, engine=engine, reserved_slugs=reserved_slugs)


@pytest.mark.parametrize(
    "schema_name",
    ["pg_x", "shared", "public", "information_schema", "X", "x" * 41, 'a"b', "a; DROP SCHEMA shared", "a b"],
)
def test_a_schema_name_outside_the_rule_is_refused_before_postgresql_is_asked(
    workshop: Database, slug: str, schema_name: str, make: Make
) -> None:
    engine = workshop.admin_engine()
    sa.event.listen(engine, "connect", lambda *_: pytest.fail("PostgreSQL was asked"))
    with pytest.raises(NameRefused):
        make(workshop, slug, engine=engine, schema_name=schema_name)


def test_the_longest_names_work(workshop: Database, make: Make) -> None:
    slug = f"l{uuid4().hex[:31]}"
    assert len(slug) == 32
    tenant = make(workshop, slug, schema_name=f"{slug}_longest")
    assert len(tenant.schema_name) == 40
    assert_works(workshop, tenant)


@pytest.mark.parametrize("slug", ["select", "null"])
def test_words_of_sql_are_names_like_any_other(workshop: Database, slug: str, make: Make) -> None:
    """They are quoted in every SQL statement."""
    tenant = make(workshop, slug, schema_name=slug)
    row = workshop.as_tenant(slug).execute("SELECT current_user::text, current_schema()::text").fetchone()
    assert row == (tenant.role_name, slug)
    assert_isolated(workshop, "eur", slug)


# The shared schema.


def test_without_the_shared_schema_at_its_head_no_tenant_is_made(
    fresh_database: Database, slug: str, make: Make
) -> None:
    """Older, unknown or never migrated: each has its own error with its remedy."""
    superuser = fresh_database.as_superuser()
    for revision, said in (("0000", "0000"), ("0007x", "0007x"), (None, "nothing")):
        superuser.execute("DELETE FROM shared.alembic_version")
        if revision:
            superuser.execute("INSERT INTO shared.alembic_version VALUES (%s)", (revision,))
        with pytest.raises(NotPrepared, match=f"is at {said}.*scripts.migrate"):
            make(fresh_database, slug)
    assert remains(fresh_database, slug) == []


def test_without_the_services_roles_no_tenant_is_made(
    workshop: Database, slug: str, make: Make, tenancy_migrations: Migrations
) -> None:
    elsewhere = replace(tenancy_migrations, roles=ServiceRoles.named("nobodys"))
    with pytest.raises(NotPrepared, match=r"nobodys_owner.*create_roles"):
        make(workshop, slug, histories=elsewhere)
    assert remains(workshop, slug) == []


def test_what_goes_wrong_on_purpose_is_one_kind_of_error() -> None:
    assert issubclass(TenantExists, ProvisioningError)
    assert issubclass(NotPrepared, ProvisioningError)
    assert issubclass(ProvisioningError, TenancyError)


def test_the_tenants_password_is_never_sent(
    workshop: Database, slug: str, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    sent: list[Any] = []
    engine, send = workshop.admin_engine(), roles.send
    monkeypatch.setattr(roles, "send", lambda connection, text: sent.append(text) or send(connection, text))
    sa.event.listen(engine, "before_cursor_execute", lambda *arguments: sent.append(arguments[2:4]))
    tenant = make(workshop, slug, engine=engine)
    password = workshop.password_of(tenant)
    assert password not in str(sent)
    assert "SCRAM-SHA-256$" in str(sent)
    with psycopg.connect(workshop.url(tenant.role_name, password)) as connection:
        assert connection.execute("SELECT current_user::text").fetchone() == (tenant.role_name,)
