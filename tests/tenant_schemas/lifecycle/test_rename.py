"""A renamed tenant keeps its money, members, tokens and login, and its old name gives no access to another tenant."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier, Event, Thread
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa
from flask import Flask
from psycopg.rows import TupleRow

from tenant_schemas.doctor import examine
from tenant_schemas.errors import LifecycleError, NameRefused, RenameRefused, TenantExists, TenantNotFound
from tenant_schemas.lifecycle.provision import provision
from tenant_schemas.lifecycle.rename import rename
from tenant_schemas.lifecycle.retired_schemas import drop_retired_schemas
from tenant_schemas.migrations.history import Migrations, set_timeouts
from tenant_schemas.registry import lock_tenant
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing.plugin import Database, assert_isolated, make_tenant
from tests.factories.api import Api
from tests.factories.people import People, Person
from tests.factories.tenants import BAM, everything, renamed

pytestmark = [pytest.mark.both_servers, pytest.mark.usefixtures("mark")]

Session = psycopg.Connection[TupleRow]
POST = (
    "SELECT (posted).balance_after_minor FROM wallet_post_v2(%s, 'deposit', %s, %s,"
    " NULL, NULL, NULL, NULL, NULL, NULL) AS done"
)


def post(session: Session, wallet_id: UUID) -> int:
    """The balance after a deposit of 1.00, by a prepared statement."""
    row = session.execute(POST, (wallet_id, 100, uuid4().hex), prepare=True).fetchone()
    assert row is not None
    return int(row[0])


def balance(database: Database, schema_name: str, wallet_id: UUID) -> int:
    query = f"SELECT balance_minor FROM {schema_name}.wallets WHERE id = %s"
    row = database.as_superuser().execute(query, (wallet_id,)).fetchone()
    assert row is not None
    return int(row[0])


def twin_of(database: Database, wallet_id: UUID, schema_name: str, twin_schema_name: str) -> None:
    """A wallet of the same id in the other schema, which would accept a posting that crosses."""
    columns = "id, user_id, currency, last_hash"
    database.as_superuser().execute(
        f"INSERT INTO {twin_schema_name}.wallets ({columns}) SELECT {columns} FROM {schema_name}.wallets WHERE id = %s",
        (wallet_id,),
    )


# Kept by a rename.


def test_slug_and_role_change_in_one_and_members_and_login_follow(
    fresh_database: Database, mark: Tenant, own: People
) -> None:
    person, gone = own.make(mark="member"), own.make(mark="member")
    fresh_database.as_superuser().execute("DELETE FROM shared.memberships WHERE user_id = %s", (gone.user_id,))
    after = renamed(fresh_database, name="Convertible mark")
    assert (after.id, after.slug, after.role_name) == (mark.id, "bam", "tenant_bam")
    assert (after.schema_name, after.name) == ("mark_schema", "Convertible mark")
    assert fresh_database.tenant("bam") == after
    login = fresh_database.as_tenant("bam")  # The password is unchanged.
    assert login.execute("SELECT current_user::text, current_schema()::text").fetchone() == (
        "tenant_bam",
        "mark_schema",
    )
    assert login.execute("SELECT user_id FROM shared.member_directory").fetchall() == [(person.user_id,)]
    former = "SELECT user_id FROM shared.all_members WHERE removed_at IS NOT NULL"
    assert login.execute(former).fetchall() == [(gone.user_id,)]
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(fresh_database.url("tenant_mark", fresh_database.password_of(mark)))


def test_an_open_session_goes_on_when_only_slug_and_role_change(fresh_database: Database, own: People) -> None:
    wallet_id = own.wallet(own.make(mark="member"), "mark", balance_minor=500)
    open_session = fresh_database.as_tenant("mark")
    assert post(open_session, wallet_id) == 600
    renamed(fresh_database)
    assert post(open_session, wallet_id) == 700
    assert open_session.execute("SELECT count(*) FROM shared.memberships").fetchone() == (1,)


@pytest.mark.parametrize("schema_name", [None, "bam_schema"])
def test_the_service_goes_on_with_the_same_token(
    fresh_app: Flask, fresh_database: Database, own: People, schema_name: str | None
) -> None:
    person = own.make(mark="member", eur="member")
    own.wallet(person, "mark", balance_minor=500)
    api, claimed = (
        Api(fresh_app),
        Person(person.user_id, "", own.token(person.user_id, fresh_database.tenant("mark").id)),
    )
    assert api.get("/api/wallet", person, "mark").json["depositBalance"] == "5.00"
    renamed(fresh_database, schema_name=schema_name)
    paid = api.post("/api/wallet/payments", claimed, json={"amount": "1.00"})
    assert (paid.status_code, paid.json["balanceAfter"]) == (201, "4.00")
    assert api.get("/api/wallet", person, "bam").json["depositBalance"] == "4.00"
    assert api.get("/api/wallet", person, "mark").status_code == 404
    assert api.get("/api/wallet", person, "eur").json["depositBalance"] == "0.00"


def test_where_tenants_share_a_login_the_role_can_still_be_taken(fresh_database: Database, own: People) -> None:
    wallet_id = own.wallet(own.make(mark="member"), "mark")
    pool = fresh_database.as_pool()
    for role, path in (("tenant_mark", "mark_schema"), ("tenant_bam", "bam_schema")):
        with pool.transaction():
            pool.execute(f"SET LOCAL ROLE {role}")
            pool.execute(f"SET LOCAL search_path TO {path}, pg_temp")
            post(pool, wallet_id)
        if role == "tenant_mark":
            renamed(fresh_database, schema_name="bam_schema")
    assert balance(fresh_database, "bam_schema", wallet_id) == 200


def test_the_renamed_schema_is_what_the_migrations_make_and_the_doctor_finds_nothing(
    fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    renamed(fresh_database, schema_name="bam_schema")
    with fresh_database.admin_engine().connect() as connection:
        found = [(each.check, each.where) for each in examine(connection, tenancy_migrations, shared_logins=True)]
    assert not [each for each in found if "bam" in each[1] or "mark" in each[1]]
    paths = fresh_database.as_superuser().execute(
        "SELECT DISTINCT unnest(proconfig) FROM pg_proc WHERE pronamespace = 'bam_schema'::regnamespace"
    )
    plans = {"enable_seqscan=off", "plan_cache_mode=force_generic_plan"}
    assert {path for (path,) in paths} == {"search_path=bam_schema, pg_temp", *plans}
    assert_isolated(fresh_database, "bam", "km")
    assert_isolated(fresh_database, "km", "bam")


# The trap: a function that uses the old name writes into the schema that has this name now.


def test_nothing_crosses_when_another_tenant_takes_all_the_old_names(
    fresh_database: Database, own: People, tenancy_migrations: Migrations
) -> None:
    person = own.make(mark="member")
    wallet_id = own.wallet(person, "mark")
    opened, pool = fresh_database.as_tenant("mark"), fresh_database.as_pool()
    assert post(opened, wallet_id) == 100
    with pool.transaction():
        pool.execute("SET LOCAL ROLE tenant_mark")
        pool.execute("SET LOCAL search_path TO mark_schema, pg_temp")
        assert post(pool, wallet_id) == 200

    renamed(fresh_database, schema_name="bam_schema")
    assert [each.error for each in drop_retired_schemas(fresh_database.admin_engine(), ["mark_schema"])] == [None]
    make_tenant(fresh_database, tenancy_migrations, "mark", BAM)
    twin_of(fresh_database, wallet_id, "bam_schema", "mark_schema")

    with pytest.raises(psycopg.errors.UndefinedFunction):  # Its old search_path finds nothing.
        post(opened, wallet_id)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        opened.execute("TABLE mark_schema.wallets")
    opened.execute("SET search_path TO bam_schema, pg_temp")
    assert post(opened, wallet_id) == 300
    assert post(fresh_database.as_tenant("bam"), wallet_id) == 400
    with pool.transaction():
        pool.execute("SET LOCAL ROLE tenant_bam")
        pool.execute("SET LOCAL search_path TO bam_schema, pg_temp")
        assert post(pool, wallet_id) == 500
    assert balance(fresh_database, "mark_schema", wallet_id) == 0

    assert post(fresh_database.as_tenant("mark"), wallet_id) == 100
    assert balance(fresh_database, "bam_schema", wallet_id) == 500
    audit = "SELECT count(*) FROM ledger_audit_v5()"
    assert fresh_database.as_tenant("bam").execute(audit).fetchone() == (0,)
    assert_isolated(fresh_database, "mark", "bam")
    assert_isolated(fresh_database, "bam", "mark")


def test_the_owner_crosses_nothing_either_in_a_session_that_was_open(
    fresh_database: Database, own: People, tenancy_migrations: Migrations
) -> None:
    """No privilege stops the owner: here only the functions' own search_path protects."""
    wallet_id = own.wallet(own.make(mark="member"), "mark")
    owner = fresh_database.as_superuser()
    owner.execute("SET search_path TO mark_schema, pg_temp")
    assert post(owner, wallet_id) == 100
    renamed(fresh_database, schema_name="bam_schema")
    assert [each.error for each in drop_retired_schemas(fresh_database.admin_engine(), ["mark_schema"])] == [None]
    make_tenant(fresh_database, tenancy_migrations, "mark", BAM)
    twin_of(fresh_database, wallet_id, "bam_schema", "mark_schema")
    owner.execute("SET search_path TO bam_schema, pg_temp")
    assert post(owner, wallet_id) == 200
    assert (balance(fresh_database, "bam_schema", wallet_id), balance(fresh_database, "mark_schema", wallet_id)) == (
        200,
        0,
    )


def test_the_old_schema_name_rests_so_that_nobody_can_take_it_at_once(
    fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    renamed(fresh_database, schema_name="bam_schema")
    with pytest.raises(TenantExists):
        make_tenant(fresh_database, tenancy_migrations, "mark", BAM)
    again = provision(
        fresh_database.admin_engine(),
        tenancy_migrations,
        slug="mark",
        name="mark",
        settings=BAM,
        tenant_secret=fresh_database.tenant_secret,
        schema_name="mark_2",
    )
    assert again.schema_name == "mark_2"
    with pytest.raises(RenameRefused):
        renamed(fresh_database, "km2", "mark", schema_name="mark_schema")


@pytest.mark.usefixtures("short_pauses")
def test_a_schema_is_not_renamed_under_an_open_db_transaction(fresh_database: Database, own: People) -> None:
    """The db transaction would not notice, and would post half of a movement under the old name."""
    wallet_id = own.wallet(own.make(mark="member"), "mark")
    session = fresh_database.as_tenant("mark")
    before = everything(fresh_database)
    with session.transaction():
        assert post(session, wallet_id) == 100
        with pytest.raises(LifecycleError):
            renamed(fresh_database, schema_name="bam_schema")
        assert everything(fresh_database) == before
        assert post(session, wallet_id) == 200
    renamed(fresh_database, schema_name="bam_schema")
    assert balance(fresh_database, "bam_schema", wallet_id) == 200


def test_money_posted_all_the_while_is_either_there_or_refused(fresh_database: Database, own: People) -> None:
    """Renamed back and forth during postings: each confirmed posting exists, and the chain is valid."""
    wallet_id = own.wallet(own.make(mark="member"), "mark")
    login = fresh_database.tenant("mark"), fresh_database.password_of(fresh_database.tenant("mark"))
    posted, stop = [], Event()

    def fire() -> None:
        while not stop.is_set():
            tenant = next(each for each in fresh_database.tenants() if each.id == login[0].id)
            try:
                with psycopg.connect(fresh_database.url(tenant.role_name, login[1]), autocommit=True) as session:
                    for _ in range(30):
                        posted.append(post(session, wallet_id))
            except psycopg.Error:
                continue

    thread = Thread(target=fire)
    thread.start()
    slugs = ["mark", "bam", "mark", "bam"]
    for slug, new_slug in pairwise(slugs):
        renamed(fresh_database, new_slug, slug, schema_name=f"{new_slug}_schema")
        dropped = list(drop_retired_schemas(fresh_database.admin_engine(), [f"{slug}_schema"]))
        assert [each.error for each in dropped] == [None]
    stop.set()
    thread.join()
    assert balance(fresh_database, "bam_schema", wallet_id) == 100 * len(posted)
    assert fresh_database.as_tenant("bam").execute("SELECT count(*) FROM ledger_audit_v5()").fetchone() == (0,)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE FUNCTION mark_schema.stray() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM mark_schema.wallets'",
        "CREATE FUNCTION mark_schema.stray() RETURNS text LANGUAGE plpgsql SET search_path TO mark_schema, pg_temp"
        " AS $$ BEGIN RETURN to_regclass(format('%I.wallets', 'mark_schema'))::text; END $$",
        "CREATE FUNCTION mark_schema.stray() RETURNS text LANGUAGE plpgsql SET search_path TO mark_schema, shared"
        " AS $$ BEGIN RETURN 'x'; END $$",
        "ALTER TABLE mark_schema.wallets ADD CONSTRAINT stray CHECK (current_schema() <> 'mark_schema')",
        "ALTER TABLE mark_schema.orders ALTER COLUMN id SET DEFAULT md5('tenant_mark')::uuid",
        "CREATE VIEW mark_schema.stray WITH (security_invoker) AS SELECT 'mark_schema' AS name",
        "CREATE FUNCTION shared.stray() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM mark_schema.wallets'",
    ],
)
def test_what_goes_by_the_old_name_in_its_text_is_found_and_nothing_is_changed(
    fresh_database: Database, statement: str
) -> None:
    server = fresh_database.as_superuser()
    server.execute("SET ROLE wallet_owner")
    server.execute(statement)
    server.execute("RESET ROLE")
    before = everything(fresh_database)
    with pytest.raises(RenameRefused, match=r"stray|meaning would change|bam_schema\.orders\.id"):
        renamed(fresh_database, schema_name="bam_schema")
    assert everything(fresh_database) == before


@pytest.mark.parametrize("name", ["orders", "select", "shared_2", "tenant_mark"])
def test_a_schema_may_be_called_like_a_word_of_sql_or_a_table_and_be_renamed_again(
    fresh_database: Database, own: People, name: str
) -> None:
    wallet_id = own.wallet(own.make(mark="member"), "mark")
    renamed(fresh_database, schema_name=name)
    assert post(fresh_database.as_tenant("bam"), wallet_id) == 100
    renamed(fresh_database, "bih", "bam", schema_name="bih_schema")
    assert post(fresh_database.as_tenant("bih"), wallet_id) == 200


@pytest.mark.parametrize("name", ["user", "wallets", "order"])
def test_where_the_old_name_is_a_word_of_the_functions_nothing_can_be_proved_or_is_changed(
    fresh_database: Database, name: str
) -> None:
    renamed(fresh_database, schema_name=name)
    before = everything(fresh_database)
    with pytest.raises(RenameRefused, match="function"):
        renamed(fresh_database, "bih", "bam", schema_name="bih_schema")
    assert everything(fresh_database) == before
    assert renamed(fresh_database, "bih", "bam").schema_name == name


@pytest.mark.parametrize("name", ["t", "w"])
def test_nor_may_it_take_the_name_of_an_alias_in_its_views(fresh_database: Database, name: str) -> None:
    before = everything(fresh_database)
    with pytest.raises(RenameRefused, match="meaning would change"):
        renamed(fresh_database, schema_name=name)
    assert everything(fresh_database) == before


# Refused names.


@pytest.mark.parametrize(
    ("new_slug", "options", "refusal"),
    [
        ("km", {}, RenameRefused),
        ("mark", {}, RenameRefused),
        ("bam", {"schema_name": "km_schema"}, RenameRefused),
        ("bam", {"schema_name": "stranger"}, RenameRefused),
        ("taken", {}, RenameRefused),
        ("wallet", {}, NameRefused),
        ("shared", {}, NameRefused),
        ("Bam", {}, NameRefused),
        ("b" * 33, {}, NameRefused),
        ("bam", {"schema_name": "pg_bam"}, NameRefused),
        ("bam", {"schema_name": "public"}, NameRefused),
        ("bam", {"schema_name": 'bam"; DROP SCHEMA km_schema; --'}, NameRefused),
    ],
)
def test_a_name_that_is_taken_or_refused_changes_nothing(
    fresh_database: Database, new_slug: str, options: dict[str, str], refusal: type[Exception]
) -> None:
    server = fresh_database.as_superuser()
    server.execute("CREATE SCHEMA stranger")
    server.execute("CREATE ROLE tenant_taken")
    try:
        before = everything(fresh_database)
        with pytest.raises(refusal):
            renamed(fresh_database, new_slug, **options)
        assert everything(fresh_database) == before
    finally:
        server.execute("DROP ROLE tenant_taken")


def test_an_unknown_tenant_is_refused(fresh_database: Database) -> None:
    with pytest.raises(TenantNotFound):
        renamed(fresh_database, "bam", "unknown")


# Concurrent renames, and a kill in the middle.


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """The results or errors of calls that start together."""
    barrier = Barrier(len(calls))

    def start(call: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return call()
        except Exception as error:  # noqa: BLE001  It is what is looked at.
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(start, calls))


def test_of_two_who_rename_one_tenant_at_once_one_wins(fresh_database: Database) -> None:
    found = at_once(
        lambda: renamed(fresh_database, "bam", schema_name="bam_schema"),
        lambda: renamed(fresh_database, "bih", schema_name="bih_schema"),
    )
    won = [each for each in found if isinstance(each, Tenant)]
    assert len(won) == 1
    assert isinstance(next(each for each in found if each is not won[0]), TenantNotFound)
    assert fresh_database.tenant(won[0].slug) == won[0]
    assert_isolated(fresh_database, won[0].slug, "km")


def test_of_a_rename_and_a_new_tenant_for_one_name_one_wins(
    fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    found = at_once(
        lambda: renamed(fresh_database, "bam", schema_name="bam_schema"),
        lambda: make_tenant(fresh_database, tenancy_migrations, "bam", BAM),
    )
    assert sum(isinstance(each, Tenant) for each in found) == 1
    assert sum(isinstance(each, RenameRefused | TenantExists) for each in found) == 1, found
    with fresh_database.admin_engine().connect() as connection:
        found_wrong = [
            each for each in examine(connection, tenancy_migrations, shared_logins=True) if "bam" in each.where
        ]
    assert found_wrong == []


def test_a_rename_waits_for_a_migration_of_that_tenant_and_no_other(fresh_database: Database, mark: Tenant) -> None:
    engine = fresh_database.admin_engine()
    with engine.begin() as migrating:
        lock_tenant(migrating, fresh_database.tenant("km").id)
        renamed(fresh_database, "bam")
    with engine.begin() as migrating:
        lock_tenant(migrating, mark.id)
        with engine.connect() as connection:
            connection.exec_driver_sql("SET LOCAL lock_timeout TO 200")
            with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
                rename(connection, fresh_database.roles, "bam", "bih")


def test_a_rename_that_is_killed_before_its_commit_changes_nothing(fresh_database: Database) -> None:
    before = everything(fresh_database)
    with fresh_database.admin_engine().connect() as connection:
        set_timeouts(connection)
        rename(connection, fresh_database.roles, "mark", "bam", schema_name="bam_schema")
        pid = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
        fresh_database.as_superuser().execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        with pytest.raises(sa.exc.OperationalError):
            connection.commit()
        connection.invalidate()
    assert everything(fresh_database) == before
    assert fresh_database.as_tenant("mark").execute("SELECT current_schema()::text").fetchone() == ("mark_schema",)


def test_nobody_waits_at_a_rename_but_who_means_that_tenant(fresh_database: Database) -> None:
    """During an uncommitted rename of one tenant another tenant posts, and the registry is read."""
    with fresh_database.admin_engine().connect() as connection:
        rename(connection, fresh_database.roles, "mark", "bam", schema_name="bam_schema")
        others = fresh_database.as_tenant("km")
        others.execute("SET statement_timeout TO 1000")
        assert others.execute("SELECT count(*) FROM wallets").fetchone() == (0,)
        app = fresh_database.as_role("wallet_app")
        app.execute("SET statement_timeout TO 1000")
        assert app.execute("SELECT count(*) FROM shared.tenants").fetchone() == (3,)
        connection.rollback()
