"""A schema has the same description after a dump and a restore, on one server and from PostgreSQL 15 to 18: pg_upgrade
restores a dump of the schema, too.
"""

import subprocess
from collections.abc import Mapping

import pytest

from tenant_schemas.backup.pg_dump import newest_pg_dump
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.schema_diff.catalog import Objects, fingerprints_of, objects_of
from tenant_schemas.schema_diff.compare import find_drift
from tenant_schemas.testing.plugin import Database, copy_of

# What PostgreSQL may change in a parsed query: each names a cast without an alias where the name is visible.
PARSED = """
    CREATE VIEW km_schema.casts AS SELECT w.id FROM km_schema.wallets w CROSS JOIN LATERAL (
        SELECT w.user_id, 1::bigint AS n UNION ALL SELECT NULL, 2 FROM km_schema.holds h) x;
    CREATE FUNCTION km_schema.casts() RETURNS boolean LANGUAGE sql RETURN EXISTS (SELECT FROM (
        SELECT w.id, w.version, w.opened_at, w.status, w.balance_minor, true AS b, now()::timestamp AS t, 'x' AS c
        FROM km_schema.wallets w
        UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) u);
    ALTER FUNCTION km_schema.casts() OWNER TO wallet_owner; ALTER VIEW km_schema.casts OWNER TO wallet_owner"""

# PostgreSQL 15.20 notes this at columns, and the pg_dump of 18.6 writes it out, where no server takes it.
FORGET_ATTVER = "UPDATE pg_attribute SET attoptions = NULL WHERE attoptions::text ~ '^{pg_attver=[0-9]*}$'"


def described(database: Database) -> Objects:
    return objects_of(database.as_superuser(), database.tenant("km"))


def fingerprint(database: Database) -> str:
    return fingerprints_of(database.as_superuser(), [database.tenant("km")])["km_schema"]


def move(source: Database, target: Database) -> None:
    """Dump the schema km_schema of one database, and restore it into the other in place of the one there."""
    pg_dump = newest_pg_dump()
    dump = [str(pg_dump), "--schema-only", "--schema=km_schema", f"--dbname={source.url()}"]
    text = subprocess.run(dump, check=True, capture_output=True).stdout
    target.as_superuser().execute("DROP SCHEMA km_schema CASCADE")
    newer = b"SET transaction_timeout = 0;"  # PostgreSQL 15 does not know it.
    psql = [str(pg_dump.with_name("psql")), "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={target.url()}"]
    restored = subprocess.run(psql, check=False, capture_output=True, input=text.replace(newer, b""))
    assert restored.returncode == 0, restored.stderr.decode()


@pytest.mark.both_servers
def test_a_dump_and_a_restore_change_no_description(fresh_database: Database, tenancy_migrations: Migrations) -> None:
    fresh_database.as_superuser().execute(PARSED)
    before = described(fresh_database)
    move(fresh_database, fresh_database)
    assert described(fresh_database) == before
    fresh_database.as_superuser().execute(
        "DROP VIEW km_schema.casts; DROP FUNCTION km_schema.casts(); INSERT INTO km_schema.alembic_version"
        " SELECT revision FROM shared.tenants WHERE slug = 'km'"
    )
    with fresh_database.admin_engine().connect() as connection:
        found = find_drift(connection, tenancy_migrations, fresh_database.tenants())
    assert (found.objects, found.failures, found.unproven) == ({}, {}, {})


def test_a_schema_of_15_has_the_description_of_18_when_it_was_moved_there(
    both_servers: Mapping[str, Database],
) -> None:
    with copy_of(both_servers["15"]) as old, copy_of(both_servers["18"]) as new:
        old.as_superuser().execute(FORGET_ATTVER)
        before = fingerprint(new)
        move(old, new)
        assert fingerprint(new) == before
