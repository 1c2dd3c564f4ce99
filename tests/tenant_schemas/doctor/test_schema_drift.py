"""Tenants' schemas differ in their names only, and a schema that differs is reported with its differences."""

import pytest

from tenant_schemas import visits
from tenant_schemas.doctor import Severity
from tenant_schemas.lifecycle.provision import provision
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.schema_diff.accepted import AcceptedDrift
from tenant_schemas.testing.plugin import Database, make_tenant
from tests.factories.doctor import broken, engine, findings, seen

pytestmark = pytest.mark.changes_roles

DIFFERENT = [
    ("ALTER TABLE eur_schema.wallets ADD COLUMN nickname text", "column wallets.nickname"),
    ("ALTER TABLE eur_schema.wallets ALTER COLUMN opened_at DROP DEFAULT", "column wallets.opened_at"),
    ("ALTER TABLE eur_schema.wallets ALTER COLUMN version TYPE bigint", "column wallets.version"),
    ("ALTER TABLE eur_schema.wallets DROP CONSTRAINT wallets_sound", "constraint wallets.wallets_sound"),
    ("DROP INDEX eur_schema.wallets_opened_at_id_idx", "index wallets_opened_at_id_idx"),
    ("CREATE OR REPLACE FUNCTION eur_schema.movement_counterpart_v1(type text) RETURNS text LANGUAGE sql IMMUTABLE"
     " RETURN 'cash'::text", "function movement_counterpart_v1(text)"),
    ("ALTER FUNCTION eur_schema.wallet_post_v2 RESET enable_seqscan", "function wallet_post_v2("),
    ("ALTER FUNCTION eur_schema.refuse_change_v1() SET search_path TO km_schema, pg_temp",
     "function refuse_change_v1()"),
    ("ALTER TABLE eur_schema.wallet_transactions DISABLE TRIGGER USER", "trigger wallet_transactions."),
    ("ALTER TABLE eur_schema.wallet_transactions DISABLE TRIGGER ALL",
     "trigger wallet_transactions.ledger_entries_transaction_id_fkey"),
    ("CREATE OR REPLACE VIEW eur_schema.ledger_postings WITH (security_invoker) AS SELECT * FROM ("
     "TABLE eur_schema.ledger_postings) x LIMIT 1", "relation ledger_postings"),
    ("REVOKE SELECT ON eur_schema.holds FROM tenant_eur", "rights on relation holds"),
    ("REVOKE EXECUTE ON FUNCTION eur_schema.hold_void_v1 FROM tenant_eur",
     "rights on function hold_void_v1(uuid,uuid)"),
    ("REVOKE USAGE ON SCHEMA eur_schema FROM tenant_eur", "rights on schema itself"),
    ("ALTER TABLE eur_schema.wallets ENABLE ROW LEVEL SECURITY", "relation wallets"),
    ("CREATE SEQUENCE eur_schema.numbers; ALTER SEQUENCE eur_schema.numbers OWNER TO wallet_owner", "relation numbers"),
    ("CREATE TYPE eur_schema.mood AS ENUM ('good'); ALTER TYPE eur_schema.mood OWNER TO wallet_owner", "type mood"),
    ("CREATE RULE r AS ON DELETE TO eur_schema.holds DO INSTEAD NOTHING", "rule holds.r"),
]  # fmt: skip
HARMLESS = [
    ("ALTER TABLE eur_schema.orders SET (fillfactor = 70)", "relation orders"),
    ("CREATE INDEX extra ON eur_schema.wallets (status)", "index extra"),
    ("COMMENT ON TABLE eur_schema.wallets IS 'x'", "relation wallets"),
    ("COMMENT ON COLUMN eur_schema.wallets.status IS 'x'", "column wallets.status"),
    ("CREATE STATISTICS eur_schema.s ON id, status FROM eur_schema.wallets", "statistics s"),
    ("ALTER TABLE eur_schema.wallets ALTER COLUMN status SET STATISTICS 7", "column wallets.status"),
]


@pytest.mark.parametrize(
    ("severity", "statement", "what"),
    [
        *((Severity.ERROR, *one) for one in DIFFERENT),
        *((Severity.WARNING, *one) for one in HARMLESS),
    ],
)
def test_a_schema_that_differs_is_named_with_what_differs(
    database: Database, severity: Severity, statement: str, what: str
) -> None:
    """With two schemas there is no majority; one of them is named, and the other."""
    with broken(database, statement) as connection:
        connection.exec_driver_sql("SET LOCAL SESSION AUTHORIZATION wallet_migrator")
        found = [one for one in findings(connection) if one.check == "schema_drift"]
    assert [one.severity for one in found] == [severity]
    assert what in found[0].what


def test_accepted_differences_are_left_out_unless_they_break_a_restore(database: Database) -> None:
    statements = (
        "CREATE INDEX extra ON eur_schema.wallets (status)",
        "CREATE FUNCTION eur_schema.report(day date) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE eur_schema.wallets ADD COLUMN nickname text",
    )
    accepted = AcceptedDrift(("index extra", "function report(*)", "rights on function report(date)", "column *"))
    with broken(database, *statements) as connection:
        connection.exec_driver_sql("SET LOCAL SESSION AUTHORIZATION wallet_migrator")
        found = [one.what for one in findings(connection, accepted=accepted) if one.check == "schema_drift"]
    assert len(found) == 1
    assert found[0].endswith(" in column wallets.nickname (breaks a restore)")


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TRIGGER {trigger} ON {schema}.wallet_transactions",
        "ALTER TABLE {schema}.wallets DROP CONSTRAINT wallets_sound",
        "GRANT EXECUTE ON FUNCTION {schema}.refuse_change_v1() TO tenant_{slug}",
        "GRANT SELECT (xmin) ON {schema}.wallets TO tenant_{slug}",
    ],
)
def test_a_fault_that_all_tenants_have_is_found(database: Database, statement: str) -> None:
    """Tenants are compared with the migrations, not with each other."""
    trigger = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'eur_schema.wallet_transactions'::regclass"
    with broken(database) as connection:
        names = {"trigger": connection.exec_driver_sql(f"{trigger} AND NOT tgisinternal LIMIT 1").scalar_one()}
        for slug in ("eur", "km"):
            connection.exec_driver_sql(statement.format(schema=f"{slug}_schema", slug=slug, **names))
        assert set(seen(connection)) == {("schema_drift", "schema eur_schema"), ("schema_drift", "schema km_schema")}


def test_nothing_of_the_new_schema_stays(database: Database) -> None:
    schemas = "SELECT array_agg(nspname ORDER BY nspname)::text FROM pg_namespace"
    with database.admin_engine().connect() as connection:
        before = connection.exec_driver_sql(schemas).scalar_one()
        findings(connection)
        assert connection.exec_driver_sql(schemas).scalar_one() == before
        assert connection.exec_driver_sql("SELECT current_user").scalar_one() == "wallet_migrator"


def test_in_a_db_transaction_that_only_reads_nothing_is_made(database: Database) -> None:
    with database.admin_engine().connect() as connection:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        assert findings(connection) == []


def test_the_most_are_right(fresh_database: Database, tenancy_migrations: Migrations) -> None:
    make_tenant(fresh_database, tenancy_migrations, "aa", {})
    with broken(fresh_database, "ALTER TABLE km_schema.wallets ADD COLUMN nickname text") as connection:
        assert seen(connection) == [("schema_drift", "schema km_schema")]
    with broken(fresh_database, "ALTER TABLE aa_schema.wallets ADD COLUMN nickname text") as connection:
        assert seen(connection) == [("schema_drift", "schema aa_schema")]


def test_a_schema_may_be_called_like_a_table_or_an_alias(
    fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    """Its own views and functions contain its name with another meaning."""
    for slug, schema_name in (("ww", "w"), ("ws", "wallets"), ("us", "user"), ("hh", "h")):
        provision(
            fresh_database.admin_engine(),
            tenancy_migrations,
            slug=slug,
            name=slug,
            settings={},
            tenant_secret=fresh_database.tenant_secret,
            schema_name=schema_name,
        )
    with broken(fresh_database) as connection:
        assert seen(connection) == []
    with broken(fresh_database, "ALTER TABLE wallets.holds ADD COLUMN nickname text") as connection:
        assert seen(connection) == [("schema_drift", "schema wallets")]


def test_schemas_of_different_revisions_are_not_compared(database: Database) -> None:
    statements = (
        "UPDATE shared.tenants SET revision = '0001' WHERE slug = 'eur'",
        "UPDATE eur_schema.alembic_version SET version_num = '0001'",
        "ALTER TABLE eur_schema.wallets ADD COLUMN nickname text",
    )
    with broken(database, *statements) as connection:
        assert seen(connection) == [("behind", "schema eur_schema")]


def test_many_tenants_are_examined_some_at_a_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no lock on an examined schema is kept."""
    monkeypatch.setattr(visits, "TENANTS_AT_ONCE", 1)
    locks = (
        "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
        " WHERE l.pid = pg_backend_pid() AND c.relnamespace <> 'pg_catalog'::regnamespace"
    )
    with engine(database).connect() as connection:
        assert findings(connection) == []
        assert connection.exec_driver_sql(locks).scalar_one() == 0
