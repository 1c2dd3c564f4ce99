"""The doctor finds disagreements of registry, schemas, roles and revisions."""

import pytest

from tenant_schemas.testing.plugin import Database
from tests.factories.doctor import assert_found_alone, broken, seen

pytestmark = pytest.mark.changes_roles

BROKEN = [
    ("CREATE ROLE tenant_stray LOGIN", "role_unregistered", "role tenant_stray"),
    ("CREATE SCHEMA stray AUTHORIZATION wallet_owner", "schema_unregistered", "schema stray"),
    ("CREATE SCHEMA stranger", "schema_unregistered", "schema stranger"),
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
