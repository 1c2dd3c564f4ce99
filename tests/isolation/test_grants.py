"""PostgreSQL itself refuses each login of the real installation everything outside its own tenant."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database, assert_isolated
from tests.conftest import running_app
from tests.factories.people import People

REFUSED = psycopg.errors.InsufficientPrivilege
PAIRS = pytest.mark.parametrize(("slug", "other"), [("eur", "km"), ("km", "eur")])


@pytest.fixture(scope="module")
def app(database: Database) -> Iterator[Flask]:
    """In one login mode: it makes the people and wallets here, and the attacks on PostgreSQL bypass it."""
    yield from running_app(database)


@PAIRS
def test_a_tenant_reaches_nothing_of_another(database: Database, app: Flask, slug: str, other: str) -> None:
    people = People(app)
    people.wallet(people.make(**{other: "member"}), other, balance_minor=100)
    assert_isolated(database, slug, other)


@pytest.mark.parametrize(
    "statement",
    [
        "TABLE {schema}.wallets",
        "TABLE {schema}.wallet_transactions",
        "SELECT * FROM {schema}.trial_balance",
        "SELECT * FROM {schema}.ledger_audit_v1()",
        "SET ROLE {role}",
        "SET LOCAL ROLE {role}",
        "SET SESSION AUTHORIZATION {role}",
        "SELECT set_config('role', '{role}', false)",
        "CREATE TABLE {schema}.mine ()",
        "CREATE TEMP TABLE wallets ()",
        "CREATE SCHEMA mine",
        "UPDATE shared.tenants SET slug = 'mine'",
        "UPDATE shared.tenants SET schema_name = 'mine'",
        "UPDATE shared.tenants SET role_name = 'tenant_mine'",
        "UPDATE shared.tenants SET login_epoch = 2",
        "UPDATE shared.tenants SET revision = '9999'",
        "DELETE FROM shared.tenants",
        "DELETE FROM shared.users",
        "DELETE FROM shared.api_keys",
        "UPDATE shared.api_keys SET role = 'service', expires_at = 'infinity'",
        "CREATE TABLE shared.mine ()",
    ],
)
@pytest.mark.parametrize("slug", ["eur", "km"])
def test_the_service_login_reaches_no_tenant(database: Database, slug: str, statement: str) -> None:
    tenant = database.tenant(slug)
    with pytest.raises(REFUSED):
        database.as_role("wallet_app").execute(
            statement.format(schema=tenant.schema_name, role=tenant.role_name).encode()
        )


@pytest.mark.parametrize(
    "statement",
    [
        "TABLE shared.users",
        "SELECT password_hash FROM shared.users",
        "INSERT INTO wallet_transactions SELECT * FROM wallet_transactions",
        "UPDATE wallet_transactions SET amount_minor = 1",
        "DELETE FROM wallet_transactions",
        "TRUNCATE wallet_transactions CASCADE",
        "INSERT INTO ledger_entries SELECT * FROM ledger_entries",
        "UPDATE ledger_entries SET amount_minor = 1",
        "DELETE FROM ledger_entries",
        "TRUNCATE ledger_entries",
        "UPDATE wallets SET balance_minor = 1000000",
        "UPDATE wallets SET credit_limit_minor = 1000000",
        "INSERT INTO wallets (user_id, currency, last_hash) VALUES (gen_random_uuid(), 'EUR', '')",
        "DELETE FROM wallets",
        "TRUNCATE wallets CASCADE",
        "UPDATE audit_log SET action = ''",
        "DELETE FROM audit_log",
        "INSERT INTO ledger_accounts VALUES ('mine', '', 'asset', 'debit')",
        "ALTER TABLE wallets DISABLE TRIGGER ALL",
        "DROP TABLE wallets CASCADE",
        "CREATE TABLE mine ()",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TEMP TABLE wallets ()",
        "CREATE SCHEMA mine",
        "CREATE TABLE public.mine ()",
        "CREATE TABLE shared.mine ()",
        "INSERT INTO shared.memberships SELECT * FROM shared.memberships",
        "UPDATE shared.memberships SET role = 'admin'",
        "UPDATE shared.tenants SET settings = '{}'",
        "SET session_replication_role TO replica",
        "COPY wallets TO PROGRAM 'true'",
        "COPY wallets TO '/tmp/stolen'",
        "SET ROLE wallet_owner",
        "SET ROLE wallet_app",
        "SET ROLE wallet_migrator",
        "SELECT pg_read_file('/etc/passwd')",
    ],
)
@pytest.mark.parametrize("slug", ["eur", "km"])
def test_a_tenant_login_writes_only_through_the_functions(database: Database, slug: str, statement: str) -> None:
    with pytest.raises(REFUSED):
        database.as_tenant(slug).execute(statement.encode())


@PAIRS
def test_a_tenant_sees_its_own_members_only(database: Database, app: Flask, slug: str, other: str) -> None:
    people = People(app)
    ours, theirs = people.make(**{slug: "member"}), people.make(**{other: "member"})
    connection = database.as_tenant(slug)
    for query in ("SELECT user_id FROM shared.memberships", "SELECT user_id FROM shared.member_directory"):
        seen = {user_id for (user_id,) in connection.execute(query.encode())}
        assert ours.user_id in seen
        assert theirs.user_id not in seen


def test_the_group_of_tenants_sees_no_tenant_at_all(database: Database, app: Flask) -> None:
    People(app).make(eur="member", km="member")
    connection = database.as_tenant("eur")
    connection.execute("SET ROLE wallet_tenants")
    for query in ("TABLE shared.tenants", "TABLE shared.memberships", "TABLE shared.member_directory"):
        assert connection.execute(query.encode()).fetchall() == []


@PAIRS
def test_the_posting_function_of_another_tenant_is_out_of_reach(
    database: Database, app: Flask, slug: str, other: str
) -> None:
    people = People(app)
    wallet_id = people.wallet(people.make(**{other: "member"}), other, balance_minor=100)
    post = "SELECT {}wallet_post_v1(%s, 'payment', 1, %s, NULL, NULL, NULL, NULL, NULL, NULL)"
    connection = database.as_tenant(slug)
    with pytest.raises(REFUSED):
        connection.execute(post.format(f"{other}_schema.").encode(), (wallet_id, uuid4().hex))
    with pytest.raises(psycopg.Error) as refused:
        connection.execute(post.format("").encode(), (wallet_id, uuid4().hex))
    assert refused.value.sqlstate == "WA006"


def test_a_search_path_turned_on_another_tenant_reaches_nothing(database: Database) -> None:
    connection = database.as_tenant("eur")
    connection.execute("SET search_path TO km_schema, eur_schema")
    assert connection.execute("SELECT current_schema()").fetchone() == ("eur_schema",)
    with pytest.raises(REFUSED):
        connection.execute("TABLE km_schema.wallets")


def test_a_function_posts_into_its_own_schema_whatever_the_callers_path(database: Database, app: Flask) -> None:
    people = People(app)
    person = people.make(eur="member", km="member")
    wallet_id = people.wallet(person, "eur", balance_minor=100)
    superuser = database.as_superuser()
    superuser.execute("SET search_path TO km_schema")
    superuser.execute(
        "SELECT eur_schema.wallet_post_v1(%s, 'payment', 1, 'k', NULL, NULL, NULL, NULL, NULL, NULL)", (wallet_id,)
    )
    query = "SELECT balance_minor FROM eur_schema.wallets WHERE id = %s"
    assert superuser.execute(query, (wallet_id,)).fetchone() == (99,)


def test_nobody_without_a_role_of_ours_may_connect(database: Database) -> None:
    superuser = database.as_superuser()
    name = f"stranger_{uuid4().hex[:8]}"
    superuser.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'".encode())
    try:
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(database.url(name, "x"))
    finally:
        superuser.execute(f"DROP ROLE {name}".encode())
