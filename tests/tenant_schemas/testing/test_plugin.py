"""The test kit itself: its databases are real and separate, and `assert_isolated` fails on every hole in the
isolation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import psycopg
import pytest

from tenant_schemas.migrations.history import Migrations
from tenant_schemas.testing.plugin import Database, assert_isolated, copy_of, make_tenant

pytestmark = pytest.mark.changes_roles

# Statements that let `eur`, which has USAGE on km_schema here, reach an object of `km`, and statements that undo them.
HOLES = {
    "reads a table": ("GRANT SELECT ON km_schema.wallets TO tenant_eur", None),
    "reads one column": ("GRANT SELECT (balance_minor) ON km_schema.wallets TO tenant_eur", None),
    "reads a view": ("GRANT SELECT ON km_schema.trial_balance, km_schema.ledger_postings TO tenant_eur", None),
    "inserts": ("GRANT INSERT ON km_schema.ledger_accounts TO tenant_eur", None),
    "updates": ("GRANT UPDATE ON km_schema.wallets TO tenant_eur", None),
    "deletes": ("GRANT DELETE ON km_schema.ledger_accounts TO tenant_eur", None),
    "truncates": ("GRANT TRUNCATE ON km_schema.ledger_accounts TO tenant_eur", None),
    "posts money": ("GRANT EXECUTE ON FUNCTION km_schema.wallet_post_v1 TO tenant_eur", None),
    "makes tables": ("GRANT CREATE ON SCHEMA km_schema TO tenant_eur", None),
    "through the group": ("GRANT SELECT ON km_schema.wallets TO wallet_tenants", None),
    "through everybody": ("GRANT SELECT ON km_schema.wallets TO PUBLIC", None),
    "owns": (
        "ALTER TABLE km_schema.ledger_accounts OWNER TO tenant_eur",
        "ALTER TABLE km_schema.ledger_accounts OWNER TO wallet_owner",
    ),
    "sees the registry": (
        "ALTER TABLE shared.tenants DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE shared.tenants ENABLE ROW LEVEL SECURITY",
    ),
    "sees the registry by a policy": (
        "CREATE POLICY loose ON shared.tenants FOR SELECT TO wallet_tenants USING (true)",
        "DROP POLICY loose ON shared.tenants",
    ),
    "sees memberships": (
        "ALTER TABLE shared.memberships DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE shared.memberships ENABLE ROW LEVEL SECURITY",
    ),
    "sees memberships by a policy": (
        "CREATE POLICY loose ON shared.memberships TO wallet_tenants USING (true)",
        "DROP POLICY loose ON shared.memberships",
    ),
    "becomes the other": ("GRANT tenant_km TO tenant_eur", None),
}


def taken_back(statement: str) -> str:
    return statement.replace("GRANT ", "REVOKE ", 1).replace(" TO ", " FROM ")


def is_isolated(database: Database, slug: str, other: str) -> bool:
    """Whether assert_isolated passes."""
    try:
        assert_isolated(database, slug, other)
    except (Exception, pytest.fail.Exception):  # noqa: BLE001  pytest's own failure is no Exception.
        return False
    finally:
        database.close()
    return True


@pytest.fixture(scope="module")
def holed(template: Database) -> Iterator[Database]:
    """A database of this file alone, with a member in each tenant. Each hole is made and closed again."""
    with copy_of(template) as holed:
        with psycopg.connect(holed.url()) as superuser:
            superuser.execute("GRANT USAGE ON SCHEMA km_schema TO wallet_tenants, PUBLIC")
            superuser.execute(
                "WITH made AS (INSERT INTO shared.users (email, name) VALUES ('eur@x.test', ''), ('km@x.test', '')"
                " RETURNING id, email)"
                " INSERT INTO shared.memberships (tenant_id, user_id, tenant_role, role)"
                " SELECT t.id, made.id, t.role_name, 'member' FROM made"
                " JOIN shared.tenants t ON made.email = t.slug || '@x.test'"
            )
        yield holed


@contextmanager
def hole(database: Database, made: str, closed: str | None) -> Iterator[None]:
    """A role's memberships belong to the whole server, so the hole is always closed again."""
    with psycopg.connect(database.url(), autocommit=True) as superuser:
        superuser.execute(made)  # type: ignore[arg-type]
        try:
            yield
        finally:
            superuser.execute(closed or taken_back(made))  # type: ignore[arg-type]
            superuser.execute("DROP TABLE IF EXISTS km_schema.intruder")  # Made through the hole.


def test_tenants_are_isolated_as_they_are_made(holed: Database) -> None:
    """Even if one can name the other's tables: USAGE alone gives no access."""
    assert is_isolated(holed, "eur", "km")
    assert is_isolated(holed, "km", "eur")


def test_every_hole_in_the_wall_is_found(holed: Database) -> None:
    """Each alone, closed before the next; with all closed, nothing is found."""
    missed = []
    for name, (made, closed) in HOLES.items():
        with hole(holed, made, closed):
            if is_isolated(holed, "eur", "km"):
                missed.append(name)
    assert is_isolated(holed, "eur", "km")
    assert missed == []


def test_a_tenant_without_tables_proves_nothing(fresh_database: Database) -> None:
    """Attempts on missing tables would also be refused."""
    with fresh_database.as_superuser() as superuser:
        superuser.execute("DROP SCHEMA km_schema CASCADE; CREATE SCHEMA km_schema")
    with pytest.raises(AssertionError, match="km_schema"):
        assert_isolated(fresh_database, "eur", "km")


def emails(database: Database) -> set[str]:
    with psycopg.connect(database.url()) as superuser:
        return {email for (email,) in superuser.execute("SELECT email FROM shared.users")}


def add_user(database: Database) -> str:
    email = f"{uuid4().hex}@example.com"
    with psycopg.connect(database.url()) as superuser:
        superuser.execute("INSERT INTO shared.users (email, name) VALUES (%s, '')", (email,))
    return email


def test_a_fresh_database_is_another_one_with_the_same_tenants(database: Database, fresh_database: Database) -> None:
    """The rows of each stay separate; the tenants, with their passwords, are those of the template."""
    assert fresh_database.name != database.name
    assert fresh_database.tenants() == database.tenants()
    mine, theirs = add_user(fresh_database), add_user(database)
    assert mine in emails(fresh_database) - emails(database)
    assert theirs in emails(database) - emails(fresh_database)
    for slug in ("eur", "km"):
        row = fresh_database.as_tenant(slug).execute("SELECT current_database(), current_user::text").fetchone()
        assert row == (fresh_database.name, f"tenant_{slug}")


def test_what_is_broken_in_a_fresh_database_is_whole_elsewhere(database: Database, fresh_database: Database) -> None:
    with fresh_database.as_superuser() as superuser:
        superuser.execute("DROP SCHEMA km_schema CASCADE")
    assert database.as_tenant("km").execute("SELECT current_schema()").fetchone() == ("km_schema",)


def test_a_copy_takes_its_own_tenants_with_it_and_leaves_the_templates(
    template: Database, database: Database, tenancy_migrations: Migrations
) -> None:
    """Roles belong to the server, so they must not accumulate on it."""
    with copy_of(template) as copy:
        make_tenant(copy, tenancy_migrations, "passing", {})
        assert copy.tenant("passing").role_name == "tenant_passing"
    with psycopg.connect(database.url()) as superuser:
        roles = superuser.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'tenant\\_%'").fetchall()
        databases = superuser.execute("SELECT 1 FROM pg_database WHERE datname = %s", (copy.name,)).fetchall()
    assert {("tenant_eur",), ("tenant_km",)} <= set(roles)
    assert ("tenant_passing",) not in roles
    assert databases == []
    assert database.as_tenant("eur").execute("SELECT 1").fetchone() == (1,)


def test_the_connections_it_hands_out_are_closed_with_it(template: Database) -> None:
    with copy_of(template) as copy:
        connections = [copy.as_superuser(), copy.as_role("wallet_app"), copy.as_tenant("eur")]
        assert not any(connection.closed for connection in connections)
    assert all(connection.closed for connection in connections)
