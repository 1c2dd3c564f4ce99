"""A dropped tenant is removed completely, after its backup, and no other tenant loses anything."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from flask import Flask

from tenant_schemas.doctor import examine
from tenant_schemas.errors import LifecycleError, StatusRefused, TenantNotFound
from tenant_schemas.lifecycle.archive import unarchive
from tenant_schemas.lifecycle.drop import drop
from tenant_schemas.lifecycle.retired_schemas import record_retired_schema
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.registry import set_status
from tenant_schemas.tenant import Tenant, TenantStatus
from tenant_schemas.testing.plugin import Database, assert_isolated, make_tenant
from tests.factories.api import Api
from tests.factories.people import People, Person
from tests.factories.tenants import BAM, archive_tenant, traces

pytestmark = [pytest.mark.both_servers, pytest.mark.usefixtures("mark")]


@pytest.fixture
def mark(fresh_database: Database, tenancy_migrations: Migrations) -> Tenant:
    """Made here, not copied with a derived template: its role has to be dropped."""
    return make_tenant(fresh_database, tenancy_migrations, "mark", BAM)


def dropped(database: Database, slug: str = "mark", back_up: Callable[[Tenant], Any] = lambda tenant: None) -> Any:
    return drop(database.admin_engine(), slug, back_up)


def test_all_of_a_tenant_is_dropped_and_nothing_of_anybody_else(
    fresh_app: Flask, fresh_database: Database, own: People, mark: Tenant, tenancy_migrations: Migrations
) -> None:
    person = own.make(mark="admin", km="member")
    own.wallet(person, "mark", balance_minor=500)
    own.wallet(person, "km", balance_minor=700)
    server, api = fresh_database.as_superuser(), Api(fresh_app)
    for tenant in ("mark", "km"):
        server.execute(
            "WITH one AS (INSERT INTO shared.sessions (user_id, tenant_id, expires_at) SELECT %(user)s, id,"
            " now() + interval '1 day' FROM shared.tenants WHERE slug = %(slug)s RETURNING id)"
            " INSERT INTO shared.refresh_tokens (token_hash, session_id) SELECT sha256(%(slug)s::bytea), id FROM one",
            {"user": person.user_id, "slug": tenant},
        )
        server.execute(
            "INSERT INTO shared.api_keys (tenant_id, name, role, secret_hash, created_by, expires_at)"
            " SELECT id, 'till', 'service', sha256('x'), %s, now() FROM shared.tenants WHERE slug = %s",
            (person.user_id, tenant),
        )
    with fresh_database.admin_engine().begin() as connection:
        later = timedelta(days=3)
        record_retired_schema(connection, schema_name="mark_old", tenant=mark, reason="replaced", keep=later)
        record_retired_schema(
            connection,
            schema_name="km_old",
            tenant=fresh_database.tenant("km"),
            reason="replaced",
            keep=later,
        )
    for name in ("mark_old", "km_old"):
        server.execute(f"CREATE SCHEMA {name} AUTHORIZATION wallet_owner")
    login = fresh_database.as_tenant("mark")  # Default privileges stop a plain DROP ROLE.
    login.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC")
    archive_tenant(fresh_database)

    dropped(fresh_database)

    assert traces(fresh_database, mark) == []
    with pytest.raises(TenantNotFound):
        fresh_database.tenant("mark")
    with pytest.raises(psycopg.Error):
        login.execute("SELECT count(*) FROM wallets")
    assert len(traces(fresh_database, fresh_database.tenant("km"))) == 7
    assert server.execute("SELECT count(*) FROM shared.refresh_tokens").fetchone() == (1,)
    assert api.get("/api/wallet", person, "mark").status_code == 404
    assert api.get("/api/wallet", person, "km").json["depositBalance"] == "7.00"
    assert api.get("/api/me", person).status_code == 200
    assert_isolated(fresh_database, "km", "eur")
    with fresh_database.admin_engine().connect() as connection:
        assert not [
            each for each in examine(connection, tenancy_migrations, shared_logins=True) if "mark" in each.where
        ]


def test_its_names_can_be_had_again_and_revive_nothing(
    fresh_app: Flask, fresh_database: Database, own: People, mark: Tenant, tenancy_migrations: Migrations
) -> None:
    person = own.make(mark="member")
    own.wallet(person, "mark", balance_minor=500)
    old = Person(person.user_id, "", own.token(person.user_id, mark.id))
    opened = fresh_database.as_tenant("mark")
    archive_tenant(fresh_database)
    dropped(fresh_database)
    make_tenant(fresh_database, tenancy_migrations, "mark", BAM)
    api = Api(fresh_app)
    assert api.get("/api/wallet", old).status_code in {401, 404}
    assert api.get("/api/wallet", person, "mark").status_code == 404
    with pytest.raises(psycopg.Error):
        opened.execute("TABLE mark_schema.wallets")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(fresh_database.url("tenant_mark", fresh_database.password_of(mark)))


@pytest.mark.parametrize("status", [TenantStatus.ACTIVE, TenantStatus.SUSPENDED])
def test_only_an_archived_tenant_is_dropped(fresh_database: Database, mark: Tenant, status: TenantStatus) -> None:
    with fresh_database.admin_engine().begin() as connection:
        set_status(connection, mark.id, status)
    with pytest.raises(StatusRefused, match="archive it first"):
        dropped(fresh_database)
    assert len(traces(fresh_database, mark)) == 3


def test_a_backup_that_fails_destroys_nothing(fresh_database: Database, mark: Tenant) -> None:
    def fail(_: Tenant) -> None:
        raise OSError("No space left on device")

    archive_tenant(fresh_database)
    with pytest.raises(OSError, match="No space"):
        dropped(fresh_database, back_up=fail)
    assert len(traces(fresh_database, mark)) == 3
    assert fresh_database.as_tenant("mark").execute("SELECT count(*) FROM wallets").fetchone() == (0,)


def test_nothing_is_written_between_the_backup_and_the_end(fresh_database: Database, own: People) -> None:
    """A request from before the archiving posts late: before the backup, or not at all."""
    wallet_id = own.wallet(own.make(mark="member"), "mark")
    late = fresh_database.as_tenant("mark")
    late.execute("SET statement_timeout TO 300")
    archive_tenant(fresh_database)

    def back_up(tenant: Tenant) -> Any:
        query = f"SELECT count(*) FROM {tenant.schema_name}.wallet_transactions"
        with pytest.raises(psycopg.errors.QueryCanceled):
            late.execute(
                "SELECT wallet_post_v2(%s, 'deposit', 1, %s, NULL, NULL, NULL, NULL, NULL, NULL)",
                (wallet_id, uuid4().hex),
            )
        return fresh_database.as_role("wallet_backup").execute(query).fetchone()

    assert dropped(fresh_database, back_up=back_up) == (0,)


def test_a_tenant_is_not_taken_back_while_somebody_drops_it(fresh_database: Database, mark: Tenant) -> None:
    archive_tenant(fresh_database)

    def take_back(_: Tenant) -> None:
        with fresh_database.admin_engine().connect() as connection:
            connection.exec_driver_sql("SET LOCAL lock_timeout TO 200")
            with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
                unarchive(connection, "mark")

    dropped(fresh_database, back_up=take_back)
    assert traces(fresh_database, mark) == []


def test_of_two_who_drop_one_tenant_at_once_one_wins(fresh_database: Database, mark: Tenant) -> None:
    archive_tenant(fresh_database)
    barrier, taken = Barrier(2), []

    def start(_: int) -> Any:
        barrier.wait()
        try:
            return dropped(fresh_database, back_up=taken.append)
        except TenantNotFound as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(start, range(2)))
    assert sorted(type(each).__name__ for each in found) == ["NoneType", "TenantNotFound"]
    assert [tenant.id for tenant in taken] == [mark.id]
    assert traces(fresh_database, mark) == []


def test_one_who_is_killed_in_the_middle_destroys_nothing(fresh_database: Database, mark: Tenant) -> None:
    archive_tenant(fresh_database)

    def kill(_: Tenant) -> None:
        fresh_database.as_superuser().execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'wallet_migrator'"
            " AND datname = current_database()"
        )

    with pytest.raises(sa.exc.OperationalError):
        dropped(fresh_database, back_up=kill)
    assert len(traces(fresh_database, mark)) == 3
    dropped(fresh_database)
    assert traces(fresh_database, mark) == []


def test_a_login_that_another_database_uses_is_not_dropped_nor_is_its_tenant(
    fresh_database: Database, template: Database, mark: Tenant
) -> None:
    with psycopg.connect(template.server_url, autocommit=True) as server:
        server.execute("GRANT CONNECT ON DATABASE postgres TO tenant_mark")
        try:
            server.execute("CREATE SCHEMA elsewhere")
            server.execute("GRANT USAGE ON SCHEMA elsewhere TO tenant_mark")
            archive_tenant(fresh_database)
            with pytest.raises(LifecycleError, match="used elsewhere"):
                dropped(fresh_database)
            assert len(traces(fresh_database, mark)) == 3
        finally:
            server.execute("DROP SCHEMA elsewhere")
            server.execute("REVOKE CONNECT ON DATABASE postgres FROM tenant_mark")


def test_rows_that_refer_to_a_tenants_rows_go_first_whatever_their_keys_say(
    fresh_database: Database, mark: Tenant
) -> None:
    """In tables that a later migration of `shared` may add; a row with ON DELETE SET NULL survives the tenant."""
    server = fresh_database.as_superuser()
    server.execute("SET ROLE wallet_owner")
    server.execute("""
        CREATE TABLE shared.desks (id int PRIMARY KEY, tenant_id uuid REFERENCES shared.tenants (id),
            next int REFERENCES shared.desks (id));
        CREATE TABLE shared.drawers (desk_id int REFERENCES shared.desks (id), no int, PRIMARY KEY (desk_id, no));
        CREATE TABLE shared.notes (desk_id int, no int,
            FOREIGN KEY (desk_id, no) REFERENCES shared.drawers (desk_id, no));
        CREATE TABLE shared.visits (tenant_id uuid REFERENCES shared.tenants (id) ON DELETE SET NULL);
        INSERT INTO shared.desks SELECT n, t.id, CASE n WHEN 1 THEN 2 END
            FROM generate_series(1, 4) n JOIN shared.tenants t ON t.slug = CASE WHEN n < 3 THEN 'mark' ELSE 'km' END;
        INSERT INTO shared.drawers SELECT n, 1 FROM generate_series(1, 4) n;
        INSERT INTO shared.notes SELECT n, 1 FROM generate_series(1, 4) n;
        INSERT INTO shared.visits SELECT id FROM shared.tenants WHERE slug = 'mark'""")
    archive_tenant(fresh_database)
    dropped(fresh_database)
    assert traces(fresh_database, mark) == []
    for table in ("desks", "drawers", "notes"):
        assert server.execute(f"SELECT count(*) FROM shared.{table}").fetchone() == (2,)
    assert server.execute("SELECT tenant_id FROM shared.visits").fetchone() == (None,)
