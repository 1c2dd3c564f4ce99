"""A repair gives a tenant the role, owner, grants and functions' paths of the registry and the history, and nothing
else. Most faults are made in a db transaction that is rolled back.
"""

import pytest

from tenant_schemas.errors import RepairRefused
from tenant_schemas.repair.repair import Repaired
from tenant_schemas.testing.plugin import Database
from tests.factories.doctor import broken, findings
from tests.factories.repairs import repair

pytestmark = pytest.mark.changes_roles

LOST = [
    "REVOKE USAGE ON SCHEMA eur_schema FROM tenant_eur",
    "REVOKE ALL ON ALL TABLES IN SCHEMA eur_schema FROM tenant_eur",
    "REVOKE ALL ON ALL ROUTINES IN SCHEMA eur_schema FROM tenant_eur",
    "REVOKE ALL ON eur_schema.wallets FROM wallet_owner",
    "GRANT ALL ON eur_schema.wallets TO PUBLIC",
    "GRANT UPDATE (balance_minor) ON eur_schema.wallets TO tenant_eur",
    "GRANT SELECT ON eur_schema.wallets TO tenant_eur WITH GRANT OPTION",
    "GRANT USAGE ON SEQUENCE eur_schema.events_n TO tenant_km",
    "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA eur_schema TO PUBLIC",
    "ALTER FUNCTION eur_schema.audit_note_v2 RESET search_path",
    "ALTER FUNCTION eur_schema.audit_note_v2 SET search_path TO km_schema, pg_temp",
    "ALTER FUNCTION eur_schema.audit_note_v2 SET work_mem TO '1GB'",
    "ALTER TABLE eur_schema.wallets OWNER TO postgres",
    "ALTER SCHEMA eur_schema OWNER TO postgres",
    "ALTER ROUTINE eur_schema.audit_note_v2 OWNER TO postgres",
    "ALTER ROLE tenant_eur NOLOGIN NOINHERIT BYPASSRLS VALID UNTIL '2020-01-01' CONNECTION LIMIT 0",
    "ALTER ROLE tenant_eur SET search_path TO shared",
    "REVOKE wallet_tenants FROM tenant_eur GRANTED BY wallet_migrator",
    "GRANT wallet_tenants TO tenant_eur WITH ADMIN OPTION",
    "REVOKE tenant_eur FROM wallet_pool GRANTED BY wallet_migrator; REVOKE tenant_eur FROM wallet_pool",
    "GRANT tenant_km TO tenant_eur",
    "GRANT tenant_eur TO wallet_app",
    "REVOKE tenant_eur FROM wallet_migrator CASCADE",
    "ALTER ROLE tenant_eur RENAME TO lost",  # The role `lost` stays in the group.
]


def test_a_sound_tenant_needs_no_statement(database: Database) -> None:
    with broken(database) as connection:
        assert repair(connection, database) == Repaired(database.tenant("eur"), [])


@pytest.mark.parametrize("fault", LOST)
def test_what_was_lost_or_added_is_set_right_at_once(database: Database, fault: str) -> None:
    with broken(database, fault) as connection:
        done = repair(connection, database)
        assert done.changes
        assert done.problem is None
        assert repair(connection, database).changes == []
        assert {finding.where for finding in findings(connection)} <= {"role lost", "role wallet_tenants"}


def test_the_migrator_repairs_what_needs_no_superuser(database: Database) -> None:
    lost = ("REVOKE ALL ON ALL TABLES IN SCHEMA eur_schema FROM tenant_eur", "ALTER ROLE tenant_eur RENAME TO lost")
    with broken(database, *lost) as connection:
        connection.exec_driver_sql("SET LOCAL SESSION AUTHORIZATION wallet_migrator")
        assert repair(connection, database).changes
        assert repair(connection, database).changes == []


def test_without_a_superuser_a_foreign_owner_is_refused(database: Database) -> None:
    with broken(database, "ALTER TABLE eur_schema.wallets OWNER TO postgres") as connection:
        connection.exec_driver_sql("SET LOCAL SESSION AUTHORIZATION wallet_migrator")
        with pytest.raises(RepairRefused, match="--superuser-url"):
            repair(connection, database)


def test_a_reporting_role_keeps_its_grants(database: Database) -> None:
    fault = ("CREATE ROLE reporting", "GRANT SELECT ON eur_schema.wallets TO reporting")
    with broken(database, *fault) as connection:
        assert repair(connection, database).changes == []


def test_a_password_that_is_refused_is_set_again(database: Database) -> None:
    with broken(database) as connection:
        done = repair(connection, database, can_log_in=False)
    (change,) = done.changes
    assert "PASSWORD of epoch 1" in change


def test_a_tenant_whose_schema_is_gone_gets_its_role_and_a_problem(database: Database) -> None:
    with broken(database, "DROP SCHEMA eur_schema CASCADE", "ALTER ROLE tenant_eur RENAME TO lost") as connection:
        done = repair(connection, database)
    assert "CREATE ROLE" in done.changes[0]
    assert done.problem is not None
    assert "is gone" in done.problem


def test_a_schema_of_another_revision_is_refused(database: Database) -> None:
    older = "UPDATE eur_schema.alembic_version SET version_num = '0001'"
    with broken(database, older) as connection, pytest.raises(RepairRefused, match="revision 0001"):
        repair(connection, database)
