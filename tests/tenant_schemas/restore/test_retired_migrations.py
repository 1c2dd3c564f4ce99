"""A replaced schema is migrated along with the tenants, so that it can still be put back, and stays closed."""

from pathlib import Path

import pytest
from flask import Flask

from app.tenancy import MIGRATIONS
from tenant_schemas.migrations.history import History
from tenant_schemas.restore.restore import restore
from tenant_schemas.restore.retired_migrations import migrate_retired_schemas
from tenant_schemas.testing.plugin import Database
from tests.factories.bundles import SLUG, destination, make_old, take

pytestmark = pytest.mark.both_servers


def test_a_replaced_schema_behind_the_head_is_migrated_and_stays_closed(
    fresh_database: Database, fresh_app: Flask, tmp_path: Path
) -> None:
    make_old(fresh_database, fresh_app, "0012")
    bundle = take(fresh_database, SLUG, tmp_path)
    replaced = restore(destination(fresh_database), bundle).replaced_schema
    (outcome,) = migrate_retired_schemas(fresh_database.admin_engine(), MIGRATIONS)
    assert (outcome.schema_name, outcome.before, outcome.after) == (replaced, "0012", MIGRATIONS.head(History.TENANT))
    assert outcome.error is None
    rights = (
        "SELECT count(*) FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a"
        " WHERE c.relnamespace = %s::regnamespace AND (a.grantee = 'tenant_shop'::regrole"
        " OR a.grantee = 'wallet_owner'::regrole AND a.privilege_type = 'UPDATE')"
    )
    assert fresh_database.as_superuser().execute(rights, (replaced,)).fetchone() == (0,)
    assert list(migrate_retired_schemas(fresh_database.admin_engine(), MIGRATIONS)) == []


def test_one_that_fails_is_an_outcome_and_the_others_are_migrated(
    fresh_database: Database, fresh_app: Flask, tmp_path: Path
) -> None:
    make_old(fresh_database, fresh_app, "0012")
    bundle = take(fresh_database, SLUG, tmp_path)
    first = restore(destination(fresh_database), bundle).replaced_schema
    fresh_database.as_superuser().execute(f"DROP TABLE {first}.holds CASCADE")
    (outcome,) = migrate_retired_schemas(fresh_database.admin_engine(), MIGRATIONS)
    assert (outcome.schema_name, outcome.has_failed, outcome.after) == (first, True, "0012")
