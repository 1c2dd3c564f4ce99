"""Each hand-made change of a tenant's schema has one effect, and the effect says what a backup and a restore do."""

import pytest

from tenant_schemas.migrations.history import Migrations
from tenant_schemas.schema_diff.catalog import objects_of
from tenant_schemas.schema_diff.compare import differences
from tenant_schemas.schema_diff.effects import DriftedObject, Effect, told
from tenant_schemas.testing.plugin import Database
from tests.factories.doctor import broken

pytestmark = [pytest.mark.both_servers, pytest.mark.changes_roles]

BREAKS = (
    "ALTER TABLE km_schema.wallets ADD COLUMN nickname text",
    "ALTER TABLE km_schema.reconciliations DROP COLUMN source_rows CASCADE",
    "ALTER TABLE km_schema.audit_refusals ALTER COLUMN action TYPE varchar(99)",
    "ALTER TABLE km_schema.reconciliations ALTER COLUMN source_rows DROP NOT NULL",
    "ALTER TABLE km_schema.wallets DROP CONSTRAINT wallets_sound",
    "DROP TABLE km_schema.reconciliations CASCADE",
    "ALTER TABLE km_schema.wallet_transactions DISABLE TRIGGER ALL",
)
LOST = (
    "CREATE TABLE km_schema.extra (id int PRIMARY KEY CHECK (id > 0))",
    "CREATE VIEW km_schema.rich AS SELECT id FROM km_schema.wallets",
    "CREATE FUNCTION km_schema.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION km_schema.movement_counterpart_v1(type text) RETURNS text LANGUAGE sql IMMUTABLE"
    " RETURN 'cash'::text",
    "ALTER TABLE km_schema.wallets ALTER COLUMN opened_at DROP DEFAULT",
    "ALTER TABLE km_schema.wallets ADD CONSTRAINT rich CHECK (balance_minor >= 0)",
    "ALTER TABLE km_schema.wallet_transactions DISABLE TRIGGER USER",
    "ALTER TABLE km_schema.wallets ENABLE ROW LEVEL SECURITY",
    "CREATE UNIQUE INDEX extra ON km_schema.wallets (id, status)",
    "DROP INDEX km_schema.wallets_opened_at_id_idx",
    "ALTER VIEW km_schema.ledger_postings SET (security_barrier = true)",
    "CREATE POLICY p ON km_schema.wallets USING (true)",
    "CREATE SEQUENCE km_schema.numbers",
    "CREATE EXTENSION pg_trgm SCHEMA km_schema",
    "CREATE TYPE km_schema.mood AS ENUM ('good')",
    "CREATE RULE r AS ON DELETE TO km_schema.holds DO INSTEAD NOTHING",
    "GRANT DELETE ON km_schema.wallets TO tenant_km",
    "GRANT SELECT ON km_schema.wallets TO tenant_eur",
    "GRANT SELECT ON km_schema.wallets TO wallet_app",
    "GRANT SELECT ON km_schema.wallets TO PUBLIC",
    "GRANT UPDATE ON km_schema.wallets TO reporting",
    "GRANT SELECT ON km_schema.wallets TO reporting WITH GRANT OPTION",
    "REVOKE SELECT ON km_schema.holds FROM tenant_km",
    "ALTER DEFAULT PRIVILEGES FOR ROLE wallet_owner IN SCHEMA km_schema GRANT SELECT ON TABLES TO reporting",
)
HARMLESS = (
    "CREATE INDEX extra ON km_schema.wallets (status)",
    "ALTER INDEX km_schema.wallets_opened_at_id_idx SET (fillfactor = 70)",
    "ALTER TABLE km_schema.wallets SET (autovacuum_vacuum_scale_factor = 0.01)",
    "ALTER TABLE km_schema.wallets ALTER COLUMN status SET STATISTICS 7",
    "ALTER TABLE km_schema.wallets ALTER COLUMN status SET STORAGE EXTERNAL",
    "ALTER TABLE km_schema.wallets ALTER COLUMN status SET (n_distinct = 5)",
    "CREATE STATISTICS km_schema.s ON id, status FROM km_schema.wallets",
    "COMMENT ON TABLE km_schema.wallets IS 'x'",
    "COMMENT ON COLUMN km_schema.wallets.status IS 'x'",
    "COMMENT ON FUNCTION km_schema.refuse_change_v1() IS 'x'",
    "COMMENT ON CONSTRAINT wallets_sound ON km_schema.wallets IS 'x'",
    "GRANT USAGE ON SCHEMA km_schema TO reporting; GRANT SELECT ON ALL TABLES IN SCHEMA km_schema TO reporting",
    "GRANT SELECT (id) ON km_schema.wallets TO reporting",
    "CREATE PUBLICATION own_tables FOR TABLES IN SCHEMA km_schema",
    "ALTER TABLE km_schema.wallets REPLICA IDENTITY FULL",
    "ALTER TABLE km_schema.wallets CLUSTER ON wallets_pkey",
)


EFFECTS = {Effect.BREAKS: BREAKS, Effect.LOST: LOST, Effect.HARMLESS: HARMLESS}


@pytest.mark.parametrize("effect", EFFECTS)
def test_each_kind_of_change_has_its_effect(database: Database, tenancy_migrations: Migrations, effect: Effect) -> None:
    """The worst effect of the objects that one statement changes, compared with the schema before."""
    tenant, wrong = database.tenant("km"), []
    with broken(database, "CREATE ROLE reporting") as connection:
        before = objects_of(connection, tenant)
        for statement in EFFECTS[effect]:
            with connection.begin_nested() as savepoint:
                connection.exec_driver_sql(statement)
                found = differences(tenancy_migrations.roles, objects_of(connection, tenant), before, "km_schema")
                savepoint.rollback()
            if not found or min((each.effect for each in found), key=list(Effect).index) is not effect:
                wrong.append((statement, found))
    assert wrong == []


def test_the_worst_effect_is_told_first_and_many_objects_are_counted() -> None:
    objects = [
        DriftedObject("index a", Effect.HARMLESS),
        DriftedObject("index b", Effect.HARMLESS),
        DriftedObject("index c", Effect.HARMLESS),
        DriftedObject("column d.e", Effect.BREAKS),
    ]
    assert told(objects, 2) == "column d.e (breaks a restore); index a, index b and 1 more (harmless)"
