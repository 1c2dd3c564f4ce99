"""A replaced schema is migrated along with the tenants, so that it can still be put back, and stays closed."""

import json
from pathlib import Path

import pytest
from flask import Flask

from tenant_schemas.migrations.history import History, Migrations
from tenant_schemas.restore.restore import restore
from tenant_schemas.restore.retired_migrations import migrate_retired_schemas
from tenant_schemas.testing.plugin import Database
from tests.factories.bundles import SLUG, destination, make_old, take
from tests.factories.script_runner import Run

pytestmark = pytest.mark.both_servers


def test_a_replaced_schema_behind_the_head_is_migrated_and_stays_closed(
    fresh_database: Database, fresh_app: Flask, tenancy_migrations: Migrations, run: Run, tmp_path: Path
) -> None:
    make_old(fresh_database, fresh_app, "0012")
    bundle = take(fresh_database, SLUG, tmp_path)
    replaced = restore(destination(fresh_database), bundle).replaced_schema
    done = run("migrate", "--json")
    assert done.exit_code == 0, done.output
    (outcome,) = (each for each in json.loads(done.stdout) if each["schemaName"] == replaced)
    assert (outcome["before"], outcome["after"]) == ("0012", tenancy_migrations.head(History.TENANT))
    rights = (
        "SELECT count(*) FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a"
        " WHERE c.relnamespace = %s::regnamespace AND (a.grantee = 'tenant_shop'::regrole"
        " OR a.grantee = 'wallet_owner'::regrole AND a.privilege_type = 'UPDATE')"
    )
    assert fresh_database.as_superuser().execute(rights, (replaced,)).fetchone() == (0,)
    assert list(migrate_retired_schemas(fresh_database.admin_engine(), tenancy_migrations)) == []


def test_one_that_can_not_be_migrated_is_an_outcome_and_stays_as_it_is(
    fresh_database: Database, fresh_app: Flask, tenancy_migrations: Migrations, tmp_path: Path
) -> None:
    make_old(fresh_database, fresh_app, "0012")
    bundle = take(fresh_database, SLUG, tmp_path)
    first = restore(destination(fresh_database), bundle).replaced_schema
    fresh_database.as_superuser().execute(f"DROP TABLE {first}.holds CASCADE")
    (outcome,) = migrate_retired_schemas(fresh_database.admin_engine(), tenancy_migrations)
    assert (outcome.schema_name, outcome.has_failed, outcome.after) == (first, True, "0012")
