"""What a restore does not bring back is said before it and after it, and keeps no bundle from being restored."""

import json
from pathlib import Path

import pytest

from tenant_schemas.migrations.history import Migrations
from tenant_schemas.restore.verify import verify
from tenant_schemas.schema_diff.reference import store_head_fingerprint
from tenant_schemas.testing.plugin import Database
from tests.factories.backups import edited
from tests.factories.bundles import SLUG, Furnished, destination, take
from tests.factories.script_runner import Run

pytestmark = pytest.mark.both_servers

BY_HAND = """
    CREATE TABLE shop_schema.extra (id int PRIMARY KEY CHECK (id > 0));
    INSERT INTO shop_schema.extra VALUES (7), (8);
    CREATE FUNCTION shop_schema.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE INDEX by_status ON shop_schema.wallets (status)"""


def test_objects_made_by_hand_are_named_before_and_after_a_restore_and_the_rest_comes_back(
    fresh_database: Database, furnished: Furnished, run: Run, tmp_path: Path, tenancy_migrations: Migrations
) -> None:
    store_head_fingerprint(fresh_database.admin_engine(), tenancy_migrations)
    superuser = fresh_database.as_superuser()
    superuser.execute(BY_HAND)
    bundle = take(fresh_database, SLUG, tmp_path)
    superuser.execute("CREATE VIEW shop_schema.since AS SELECT 1 AS one")
    table = "table extra (2 rows, in tables/extra.copy.gz)"
    verified = run("verify_backup", str(bundle.folder))
    assert verified.exit_code == 0, verified.output
    before = run("restore_tenant", str(bundle.folder), "--dry-run")
    after = run("restore_tenant", str(bundle.folder), "--yes")
    assert after.exit_code == 0, after.output
    for output in (verified.output, before.output, after.output):
        assert table in output
        assert "function f()" in output
        assert "index by_status (harmless)" in output
    for output in (before.output, after.output):
        assert "relation since" in output
    assert "relation since" not in verified.output
    retired = "SELECT schema_name FROM shared.spare_schemas WHERE reason = 'replaced' ORDER BY since DESC LIMIT 1"
    ((kept,),) = superuser.execute(retired).fetchall()
    assert superuser.execute(f"SELECT count(*) FROM {kept}.extra".encode()).fetchone() == (2,)
    restored = fresh_database.tenant(SLUG).schema_name
    wallets = superuser.execute(f"SELECT id FROM {restored}.wallets".encode()).fetchall()
    assert (furnished.wallet_id,) in wallets
    assert superuser.execute("SELECT to_regclass(%s)", (f"{restored}.extra",)).fetchone() == (None,)


def test_a_bundle_of_a_release_that_noted_no_drift_names_its_extra_tables(
    fresh_database: Database, furnished: Furnished, run: Run, tmp_path: Path
) -> None:
    fresh_database.as_superuser().execute(BY_HAND)
    bundle = take(fresh_database, SLUG, tmp_path)
    edited(bundle, lambda told: told.update(drift=None))
    result = run("verify_backup", "--json", str(bundle.folder))
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)[0]["leftOut"] == ["table extra (2 rows, in tables/extra.copy.gz)"]


def test_a_schema_as_the_migrations_make_it_leaves_nothing_out(
    fresh_database: Database, furnished: Furnished, tmp_path: Path
) -> None:
    assert verify(destination(fresh_database), take(fresh_database, SLUG, tmp_path)).left_out == ()
