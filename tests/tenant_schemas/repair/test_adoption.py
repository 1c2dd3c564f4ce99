"""A schema that was renamed by hand, or whose row is gone, is adopted if the operator names it."""

import pytest

from tenant_schemas.errors import RepairRefused
from tenant_schemas.repair.adoption import Adoption
from tenant_schemas.testing.plugin import Database
from tests.factories.doctor import broken, findings
from tests.factories.repairs import repair, unregistered

pytestmark = pytest.mark.changes_roles

RENAMED = "ALTER SCHEMA eur_schema RENAME TO aside"
ASIDE = Adoption(schema_name="aside")


def test_a_schema_that_was_renamed_by_hand_gets_its_name_back(database: Database) -> None:
    with broken(database, RENAMED) as connection:
        done = repair(connection, database, adoption=ASIDE)
        assert done.changes == ['ALTER SCHEMA "aside" RENAME TO "eur_schema"']
        assert findings(connection) == []


def test_a_tenant_without_a_row_is_added_suspended(database: Database) -> None:
    with unregistered(database) as (connection, tenant_id):
        settings = {"currency": "EUR"}
        adoption = Adoption(schema_name="eur_schema", tenant_id=tenant_id, settings=settings)
        tenant = repair(connection, database, adoption=adoption).tenant
        assert (tenant.id, tenant.status, tenant.settings) == (tenant_id, "suspended", settings)
        assert tenant.login_epoch > 1_000_000
        assert findings(connection) == []


@pytest.mark.parametrize(
    ("adoption", "reason"),
    [
        (Adoption(schema_name="nowhere"), "does not exist"),
        (Adoption(schema_name="km_schema"), "tenant km has it"),
        (Adoption(schema_name="old"), "retired schema of tenant eur"),
        (Adoption(schema_name="stray"), "has its schema eur_schema"),
    ],
)
def test_what_is_not_the_tenants_is_refused(database: Database, adoption: Adoption, reason: str) -> None:
    retired = (
        "INSERT INTO shared.spare_schemas (schema_name, tenant_id, slug, reason, since, drop_after)"
        " SELECT 'old', id, slug, 'replaced', now(), now() FROM shared.tenants WHERE slug = 'eur'"
    )
    fault = ("CREATE SCHEMA old", "CREATE SCHEMA stray", retired)
    with broken(database, *fault) as connection, pytest.raises(RepairRefused, match=reason):
        repair(connection, database, adoption=adoption)


def test_without_an_id_and_a_currency_no_row_is_added(database: Database) -> None:
    with unregistered(database) as (connection, _), pytest.raises(RepairRefused, match="--id"):
        repair(connection, database, adoption=Adoption(schema_name="eur_schema"))


def test_a_schema_without_a_revision_is_no_tenants(database: Database) -> None:
    with unregistered(database) as (connection, tenant_id):
        connection.exec_driver_sql("CREATE SCHEMA stray AUTHORIZATION wallet_owner")
        adoption = Adoption(schema_name="stray", tenant_id=tenant_id, settings={"currency": "EUR"})
        with pytest.raises(RepairRefused, match="its revision is none"):
            repair(connection, database, adoption=adoption)
