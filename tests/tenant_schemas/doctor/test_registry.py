"""The doctor finds disagreements of registry, schemas, roles and revisions."""

import pytest

from tenant_schemas.testing.plugin import Database
from tests.factories.doctor import assert_found_alone, assert_remedied, broken, findings, seen

pytestmark = pytest.mark.changes_roles

BROKEN = [
    ("CREATE ROLE tenant_stray LOGIN", "role_unregistered", "role tenant_stray"),
    ("CREATE SCHEMA stray AUTHORIZATION wallet_owner", "schema_unregistered", "schema stray"),
    ("CREATE SCHEMA stranger", "schema_unregistered", "schema stranger"),
    ('CREATE SCHEMA "order"', "schema_unregistered", "schema order"),
    ("UPDATE eur_schema.alembic_version SET version_num = '0001'", "revision", "schema eur_schema"),
    ("DELETE FROM eur_schema.alembic_version", "revision", "schema eur_schema"),
    ("UPDATE shared.alembic_version SET version_num = '0001'", "behind", "schema shared"),
    ("UPDATE shared.tenants SET revision = '0001' WHERE slug = 'eur';"
     " UPDATE eur_schema.alembic_version SET version_num = '0001'", "behind", "schema eur_schema"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "check", "where"), BROKEN)
def test_what_is_broken_is_found_and_nothing_else(database: Database, statement: str, check: str, where: str) -> None:
    assert_found_alone(database, statement, check, where)


def test_a_schema_that_is_gone_is_found_once(database: Database) -> None:
    with broken(database, "DROP SCHEMA km_schema CASCADE") as connection:
        assert seen(connection) == [("schema_missing", "schema km_schema")]


def test_a_role_that_is_gone_is_found(database: Database) -> None:
    renamed = "ALTER ROLE tenant_km RENAME TO tenant_lost"
    with broken(database, renamed) as connection:
        found = seen(connection)
        assert ("role_missing", "role tenant_km") in found
        assert ("role_unregistered", "role tenant_lost") in found
        connection.exec_driver_sql("SET LOCAL SESSION AUTHORIZATION DEFAULT")
        lost = [finding for finding in findings(connection) if finding.check == "role_missing"]
        # The test's template uses the role too, so it can't be dropped here.
        assert_remedied(connection, database, lost, left={"tenant_lost", "wallet_tenants"})


def test_a_role_that_no_tenant_has_loses_what_it_has_and_no_table_is_lost(database: Database) -> None:
    with broken(
        database,
        "CREATE ROLE tenant_stray LOGIN; GRANT SELECT ON km_schema.wallets TO tenant_stray",
        "CREATE TABLE public.mine (); ALTER TABLE public.mine OWNER TO tenant_stray",
    ) as connection:
        assert_remedied(connection, database, findings(connection))
        assert connection.exec_driver_sql("SELECT to_regclass('public.mine')").scalar_one() is not None


def test_a_schema_that_was_renamed_by_hand_is_adopted_and_not_dropped(database: Database) -> None:
    with broken(database, "ALTER SCHEMA km_schema RENAME TO aside") as connection:
        found = findings(connection)
        adopt = "Run `python -m scripts.repair_tenant km --adopt aside`."
        told = {(finding.check, finding.where): finding.remedy for finding in found}
        assert told["schema_missing", "schema km_schema"] == told["schema_unregistered", "schema aside"] == adopt
        assert "definer_path" not in {finding.check for finding in found}
        assert_remedied(connection, database, found)


@pytest.mark.parametrize("fault", ["CREATE TABLE stray.alembic_version ()", "CREATE TABLE stray.notes ()"])
def test_no_remedy_drops_a_table(database: Database, fault: str) -> None:
    """A schema that nobody has registered may hold a tenant's money."""
    with broken(database, "CREATE SCHEMA stray AUTHORIZATION wallet_owner", fault) as connection:
        (finding,) = (one for one in findings(connection) if one.check == "schema_unregistered")
    assert "CASCADE" not in finding.remedy
    assert ("--adopt stray --id" in finding.remedy) == ("alembic_version" in fault)
