"""An archived tenant serves nobody and loses nothing; a dropped one is gone whole, after its backup, and alone."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from flask import Flask

from app.tenancy import MIGRATIONS
from scripts import drop_tenant
from tenant_schemas.backup.backup import back_up
from tenant_schemas.backup.bundle import open_bundle
from tenant_schemas.doctor import examine
from tenant_schemas.errors import LifecycleError, StatusRefused, TenantNotFound
from tenant_schemas.flask import EXTENSION
from tenant_schemas.lifecycle.archive import archive, unarchive
from tenant_schemas.lifecycle.drop import drop
from tenant_schemas.lifecycle.retired_schemas import record_retired_schema
from tenant_schemas.registry import set_status
from tenant_schemas.registry_watcher import check_registry
from tenant_schemas.tenant import Tenant, TenantStatus
from tenant_schemas.testing.plugin import Database, assert_isolated, make_tenant
from tests.factories.api import Api
from tests.factories.door import Run, door
from tests.factories.people import People, Person

BAM = {"currency": "BAM"}


@pytest.fixture(autouse=True)
def mark(fresh_database: Database) -> Tenant:
    """A tenant of this database only: the roles of eur and km are those of all tests."""
    return make_tenant(fresh_database, MIGRATIONS, "mark", BAM)


@pytest.fixture
def run(fresh_database: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    return door(fresh_database, monkeypatch)


@pytest.fixture
def own(fresh_app: Flask) -> People:
    return People(fresh_app)


def set_aside(database: Database, slug: str = "mark") -> None:
    with database.admin_engine().begin() as connection:
        archive(connection, slug)


def dropped(database: Database, slug: str = "mark", back_up: Callable[[Tenant], Any] = lambda tenant: None) -> Any:
    return drop(database.admin_engine(), slug, back_up)


def traces(database: Database, tenant: Tenant) -> list[Any]:
    """What of a tenant is in the catalogue, in `shared` and among the roles."""
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


# The archive.


def test_an_archived_tenant_serves_nobody_but_auditors_and_comes_back_whole(
    fresh_app: Flask, fresh_database: Database, own: People
) -> None:
    member, auditor = own.make(mark="member"), own.make(mark="auditor")
    wallet_id = own.wallet(member, "mark", balance_minor=500)
    api = Api(fresh_app)
    set_aside(fresh_database)
    assert api.get("/api/wallet", member, "mark").status_code == 404
    assert api.post("/api/wallet/payments", member, "mark", json={"amount": "1.00"}).status_code == 404
    assert api.get(f"/api/admin/wallets/{wallet_id}", auditor, "mark").json["depositBalance"] == "5.00"
    with fresh_database.admin_engine().begin() as connection:
        unarchive(connection, "mark")
    assert api.get("/api/wallet", member, "mark").json["depositBalance"] == "5.00"
    assert_isolated(fresh_database, "mark", "km")


@pytest.mark.parametrize(
    ("status", "move", "is_allowed"),
    [
        (TenantStatus.ACTIVE, archive, True),
        (TenantStatus.SUSPENDED, archive, True),
        (TenantStatus.ARCHIVED, archive, False),
        (TenantStatus.ARCHIVED, unarchive, True),
        (TenantStatus.ACTIVE, unarchive, False),
        (TenantStatus.SUSPENDED, unarchive, False),
    ],
)
def test_a_status_that_does_not_fit_is_refused_and_named(
    fresh_database: Database, mark: Tenant, status: TenantStatus, move: Callable[..., Tenant], is_allowed: bool
) -> None:
    with fresh_database.admin_engine().begin() as connection:
        set_status(connection, mark.id, status)
        if is_allowed:
            assert move(connection, "mark").status is status
        else:
            with pytest.raises(StatusRefused, match=status):
                move(connection, "mark")
    to = TenantStatus.ARCHIVED if move is archive else TenantStatus.ACTIVE
    assert fresh_database.tenant("mark").status is (to if is_allowed else status)


def test_the_scripts_archive_and_take_back_and_the_log_says_so(run: Run, fresh_database: Database) -> None:
    assert run("archive_tenant", "mark").exit_code == 0
    again = run("archive_tenant", "mark")
    assert (again.exit_code, "archived" in again.output) == (1, True)
    assert run("unarchive_tenant", "mark").exit_code == 0
    assert run("unarchive_tenant", "mark").exit_code == 1
    assert run("archive_tenant", "nobody").exit_code == 2
    log = fresh_database.as_tenant("mark").execute("SELECT action, after ->> 'status' FROM audit_log ORDER BY seq")
    assert log.fetchall() == [("tenant.archive", "archived"), ("tenant.unarchive", "active")]


def test_a_tenant_whose_log_is_broken_can_still_be_put_away(run: Run, fresh_database: Database) -> None:
    fresh_database.as_superuser().execute("DROP FUNCTION mark_schema.audit_note_v1 CASCADE")
    done = run("archive_tenant", "mark")
    assert done.exit_code == 0
    assert "audit log" in done.output
    assert fresh_database.tenant("mark").status is TenantStatus.ARCHIVED
    assert run("unarchive_tenant", "mark").exit_code == 1


# The end.


def test_all_of_a_tenant_is_dropped_and_nothing_of_anybody_else(
    fresh_app: Flask, fresh_database: Database, own: People, mark: Tenant
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
        later = datetime.now(UTC) + timedelta(days=3)
        record_retired_schema(connection, schema_name="mark_old", tenant=mark, reason="replaced", drop_after=later)
        record_retired_schema(
            connection,
            schema_name="km_old",
            tenant=fresh_database.tenant("km"),
            reason="replaced",
            drop_after=later,
        )
    for name in ("mark_old", "km_old"):
        server.execute(f"CREATE SCHEMA {name} AUTHORIZATION wallet_owner")
    login = fresh_database.as_tenant("mark")  # Which has done what stops a plain DROP ROLE.
    login.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC")
    set_aside(fresh_database)

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
        assert not [each for each in examine(connection, MIGRATIONS, shared_logins=True) if "mark" in each.where]


def test_its_names_can_be_had_again_and_revive_nothing(
    fresh_app: Flask, fresh_database: Database, own: People, mark: Tenant
) -> None:
    person = own.make(mark="member")
    own.wallet(person, "mark", balance_minor=500)
    old = Person(person.user_id, "", own.token(person.user_id, mark.id))
    opened = fresh_database.as_tenant("mark")
    set_aside(fresh_database)
    dropped(fresh_database)
    make_tenant(fresh_database, MIGRATIONS, "mark", BAM)
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

    set_aside(fresh_database)
    with pytest.raises(OSError, match="No space"):
        dropped(fresh_database, back_up=fail)
    assert len(traces(fresh_database, mark)) == 3
    assert fresh_database.as_tenant("mark").execute("SELECT count(*) FROM wallets").fetchone() == (0,)


def test_nothing_is_written_between_the_backup_and_the_end(fresh_database: Database, own: People) -> None:
    """A request that came in before the tenant was archived posts late: before the backup, or not at all."""
    wallet_id = own.wallet(own.make(mark="member"), "mark")
    late = fresh_database.as_tenant("mark")
    late.execute("SET statement_timeout TO 300")
    set_aside(fresh_database)

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
    set_aside(fresh_database)

    def take_back(_: Tenant) -> None:
        with fresh_database.admin_engine().connect() as connection:
            connection.exec_driver_sql("SET LOCAL lock_timeout TO 200")
            with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
                unarchive(connection, "mark")

    dropped(fresh_database, back_up=take_back)
    assert traces(fresh_database, mark) == []


def test_of_two_who_drop_one_tenant_at_once_one_wins(fresh_database: Database, mark: Tenant) -> None:
    set_aside(fresh_database)
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
    set_aside(fresh_database)

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
            set_aside(fresh_database)
            with pytest.raises(LifecycleError, match="used elsewhere"):
                dropped(fresh_database)
            assert len(traces(fresh_database, mark)) == 3
        finally:
            server.execute("DROP SCHEMA elsewhere")
            server.execute("REVOKE CONNECT ON DATABASE postgres FROM tenant_mark")


def test_rows_that_refer_to_a_tenants_rows_go_first_whatever_their_keys_say(
    fresh_database: Database, mark: Tenant
) -> None:
    """Of tables that a later migration of `shared` may bring; what says SET NULL outlives the tenant."""
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
    set_aside(fresh_database)
    dropped(fresh_database)
    assert traces(fresh_database, mark) == []
    for table in ("desks", "drawers", "notes"):
        assert server.execute(f"SELECT count(*) FROM shared.{table}").fetchone() == (2,)
    assert server.execute("SELECT tenant_id FROM shared.visits").fetchone() == (None,)


# The script.


def test_the_script_backs_up_then_drops_and_the_tenant_can_be_had_back(
    run: Run, fresh_database: Database, own: People, mark: Tenant, tmp_path: Path
) -> None:
    person = own.make(mark="member")
    own.wallet(person, "mark", balance_minor=500)
    assert run("archive_tenant", "mark").exit_code == 0
    check_registry(own.app.extensions[EXTENSION])  # As a process that serves does every two seconds.
    done = run("drop_tenant", "mark", "--to", str(tmp_path), "--yes", "--json")
    assert done.exit_code == 0, done.output
    bundle = json.loads(done.output)["bundle"]
    assert Path(bundle).is_relative_to(tmp_path)
    assert traces(fresh_database, mark) == []
    back = run("restore_tenant", bundle, "--yes")
    assert back.exit_code == 0, back.output
    if fresh_database.tenant("mark").status is TenantStatus.ARCHIVED:
        assert run("unarchive_tenant", "mark").exit_code == 0
    found = Api(own.app).get("/api/wallet", person, "mark")
    assert (found.status_code, found.json.get("depositBalance")) == (200, "5.00"), found.json


@pytest.mark.parametrize(
    ("arguments", "typed", "code"),
    [
        (("mark",), None, 2),
        (("mark", "--no-backup", "--to", "/tmp"), None, 2),
        (("mark", "--to", "/tmp", "--seal-to", "nobody", "--yes"), None, 2),
        (("mark", "--no-backup"), "km\n", 2),
        (("mark", "--no-backup"), "mark\nkm\n", 2),
        (("mark", "--no-backup"), "", 1),
        (("nobody", "--no-backup", "--yes"), None, 2),
        (("km", "--no-backup", "--yes"), None, 1),
        (("mark", "--yes", "--to", "/proc/nowhere"), None, 1),
    ],
)
def test_the_script_drops_nothing_that_is_not_meant(
    run: Run, fresh_database: Database, arguments: Any, typed: str | None, code: int
) -> None:
    mark = fresh_database.tenant("mark")
    set_aside(fresh_database)
    done = run("drop_tenant", *arguments, input=typed)
    assert done.exit_code == code, done.output
    assert done.output
    assert "Traceback" not in done.output
    assert len(traces(fresh_database, mark)) == 3
    assert fresh_database.tenant("km").is_active


def test_the_script_drops_what_a_person_has_named_twice(run: Run, fresh_database: Database, mark: Tenant) -> None:
    set_aside(fresh_database)
    done = run("drop_tenant", "mark", "--no-backup", input="mark\nmark\n")
    assert done.exit_code == 0, done.output
    assert "There is no backup." in done.output
    assert traces(fresh_database, mark) == []


@pytest.fixture
def backed_up_elsewhere(other_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backups read another server, which has another tenant of the name."""
    make_tenant(other_database, MIGRATIONS, "mark", BAM)
    monkeypatch.setenv("BACKUP_DATABASE_URL", other_database.url(other_database.roles.backup))


@pytest.mark.usefixtures("backed_up_elsewhere")
def test_its_last_backup_is_taken_where_it_is_destroyed(
    run: Run, fresh_database: Database, own: People, mark: Tenant, tmp_path: Path
) -> None:
    own.wallet(own.make(mark="member"), "mark", balance_minor=500)
    set_aside(fresh_database)
    done = run("drop_tenant", "mark", "--to", str(tmp_path), "--yes", "--json")
    assert done.exit_code == 0, done.output
    manifest = open_bundle(Path(json.loads(done.output)["bundle"])).manifest
    assert manifest.tenant.id == mark.id
    assert {table.rows for table in manifest.tables if table.name == "wallets"} == {1}


def test_a_backup_of_another_tenant_destroys_nothing(
    run: Run, fresh_database: Database, mark: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a URL names several servers."""
    monkeypatch.setattr(drop_tenant, "back_up", lambda source, slug, shape: back_up(source, "km", shape))
    set_aside(fresh_database)
    done = run("drop_tenant", "mark", "--to", str(tmp_path), "--yes")
    assert (done.exit_code, "another tenant" in done.output) == (1, True)
    assert len(traces(fresh_database, mark)) == 3
