"""A lost installation comes back from its bundles: the schema shared first, then each tenant, each on its own."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tenant_schemas.backup.backup import back_up
from tenant_schemas.backup.bundle import open_bundle
from tenant_schemas.backup.bundle_set import find_bundles
from tenant_schemas.backup.shared_bundle import SharedBundle
from tenant_schemas.backup.writer import BackupOptions
from tenant_schemas.errors import RestoreRefused, VerificationFailed
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.restore.installation import Origins, Status, TenantOutcome, restore_tenants
from tenant_schemas.restore.restore import restore
from tenant_schemas.restore.shared_restore import restore_shared
from tenant_schemas.schema_diff.compare import find_drift
from tenant_schemas.testing.plugin import Database, make_tenant
from tests.factories.backups import KEYS, source_of
from tests.factories.bundles import SLUG, Furnished, audit, content, destination, without_log
from tests.factories.installations import SHARED_POLICY, lose, take_all, take_shared
from tests.factories.people import People


def restored(database: Database, shared: SharedBundle) -> Mapping[str, TenantOutcome]:
    bundles = find_bundles(shared.folder.parent, KEYS)
    origins = Origins(bundles=bundles, keys=KEYS, identity_file=None, shared_taken_at=shared.manifest.taken_at)
    return {outcome.slug: outcome for outcome in restore_tenants(destination(database), origins)}


def lose_and_load(database: Database, shared: SharedBundle) -> None:
    lose(database)
    restore_shared(destination(database), SHARED_POLICY, shared, {})


def statuses(outcomes: Mapping[str, TenantOutcome]) -> dict[str, Status]:
    return {slug: outcome.status for slug, outcome in outcomes.items()}


def test_every_tenant_has_its_rows_status_and_login_again(
    fresh_database: Database, furnished: Furnished, tmp_path: Path
) -> None:
    fresh_database.as_superuser().execute(
        "UPDATE shared.tenants SET status = 'suspended', login_epoch = 7 WHERE slug = %s", (SLUG,)
    )
    shared = take_all(fresh_database, tmp_path)
    before, tenants = content(fresh_database, SLUG), fresh_database.tenants()
    lose_and_load(fresh_database, shared)
    outcomes = restored(fresh_database, shared)
    assert statuses(outcomes) == dict.fromkeys(("eur", "km", SLUG), Status.RESTORED)
    assert fresh_database.tenants() == tenants
    assert without_log(content(fresh_database, SLUG)) == without_log(before)
    assert audit(fresh_database, SLUG) == []


def test_a_tenant_that_fails_stops_no_other_and_a_second_run_goes_on(fresh_database: Database, tmp_path: Path) -> None:
    shared = take_all(fresh_database, tmp_path)
    (bundle,) = tmp_path.glob("km-*")
    (damaged,) = bundle.glob("tables/wallets.*")
    kept = shutil.copy(damaged, tmp_path / "kept")
    damaged.write_bytes(b"x")
    lose_and_load(fresh_database, shared)
    first = restored(fresh_database, shared)
    assert statuses(first) == {"eur": Status.RESTORED, "km": Status.FAILED}
    assert "changed or damaged" in str(first["km"].error)
    shutil.copy(kept, damaged)
    before = content(fresh_database, "eur")
    assert statuses(restored(fresh_database, shared)) == {"eur": Status.HERE, "km": Status.RESTORED}
    assert content(fresh_database, "eur") == before


def test_a_tenant_without_a_bundle_is_named(fresh_database: Database, tmp_path: Path) -> None:
    shared = take_all(fresh_database, tmp_path)
    (bundle,) = tmp_path.glob("km-*")
    (bundle / "manifest.json").write_text("{")
    (other,) = tmp_path.glob("eur-*")
    shutil.rmtree(other)
    lose_and_load(fresh_database, shared)
    outcomes = restored(fresh_database, shared)
    assert "no bundle of this tenant" in str(outcomes["eur"].error)
    assert "move this one" in str(outcomes["km"].error)


def test_a_restore_that_fails_half_way_leaves_no_schema_that_looks_like_the_tenants(
    fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup of that time would have no rows, and the next run would take the tenant for restored."""
    shared = take_all(fresh_database, tmp_path)
    lose_and_load(fresh_database, shared)
    seen: list[tuple[Any, ...]] = []

    def fail(*_: object) -> int:
        query = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^(eur|km)_schema'"
        seen.extend(fresh_database.as_superuser().execute(query))
        raise VerificationFailed("the rows differ")

    with monkeypatch.context() as broken:
        broken.setattr("tenant_schemas.restore.restore.load", fail)
        assert set(statuses(restored(fresh_database, shared)).values()) == {Status.FAILED}
    assert len(seen) == 2
    assert not {("eur_schema",), ("km_schema",)} & set(seen)
    assert set(statuses(restored(fresh_database, shared)).values()) == {Status.RESTORED}
    assert {tenant.schema_name for tenant in fresh_database.tenants()} == {"eur_schema", "km_schema"}


def test_a_dropped_tenant_stays_away_and_a_later_one_is_told(
    fresh_database: Database, fresh_app: Flask, tmp_path: Path, tenancy_migrations: Migrations
) -> None:
    shared = take_all(fresh_database, tmp_path)
    fresh_database.as_superuser().execute(
        "DELETE FROM shared.tenants WHERE slug = 'eur'; DROP SCHEMA eur_schema CASCADE"
    )
    shutil.rmtree(shared.folder)
    shared = take_shared(fresh_database, tmp_path)
    make_tenant(fresh_database, tenancy_migrations, "later", {"currency": "EUR"})
    back_up(source_of(fresh_database), "later", BackupOptions(folder=tmp_path))
    lose_and_load(fresh_database, shared)
    fresh_database.as_superuser().execute("DROP ROLE tenant_later")
    outcomes = restored(fresh_database, shared)
    assert statuses(outcomes) == {"km": Status.RESTORED, "eur": Status.LEFT_OUT, "later": Status.FAILED}
    assert "restore_tenant" in str(outcomes["later"].error)


def test_a_user_of_a_newer_bundle_is_made_without_a_way_in(
    fresh_database: Database, fresh_app: Flask, tmp_path: Path
) -> None:
    shared = take_shared(fresh_database, tmp_path)
    people = People(fresh_app)
    newcomer = people.make(km="member", password_hash="$argon2id$x")
    people.wallet(newcomer, "km", balance_minor=100)
    for slug in ("eur", "km"):
        back_up(source_of(fresh_database), slug, BackupOptions(folder=tmp_path))
    lose_and_load(fresh_database, shared)
    assert restored(fresh_database, shared)["km"].status is Status.RESTORED
    query = "SELECT status, password_hash FROM shared.users WHERE id = %s"
    assert fresh_database.as_superuser().execute(query, (newcomer.user_id,)).fetchall() == [("disabled", None)]


def test_a_tenant_gets_its_schema_back_under_its_name(
    fresh_database: Database, tmp_path: Path, tenancy_migrations: Migrations
) -> None:
    """Also if the name is that of another tenant, as after a rename that kept the schema."""
    for slug in ("alpha", "beta"):
        make_tenant(fresh_database, tenancy_migrations, slug, {"currency": "EUR"})
    shared = take_all(fresh_database, tmp_path)
    lose_and_load(fresh_database, shared)
    superuser = fresh_database.as_superuser()
    superuser.execute("UPDATE shared.tenants SET schema_name = 'former_schema' WHERE slug = 'alpha'")
    superuser.execute("UPDATE shared.tenants SET schema_name = 'alpha_schema' WHERE slug = 'beta'")
    assert set(statuses(restored(fresh_database, shared)).values()) == {Status.RESTORED}
    schemas = {tenant.slug: tenant.schema_name for tenant in fresh_database.tenants()}
    assert (schemas["alpha"], schemas["beta"]) == ("former_schema", "alpha_schema")
    assert fresh_database.as_tenant("beta").execute("SELECT current_schema()").fetchone() == ("alpha_schema",)
    with fresh_database.admin_engine().connect() as connection:
        assert find_drift(connection, tenancy_migrations, fresh_database.tenants(), is_full=True).objects == {}


def test_a_tenant_that_has_its_schema_again_is_not_replaced(fresh_database: Database, tmp_path: Path) -> None:
    """Two runs at once: the second finds what the first has restored."""
    take_all(fresh_database, tmp_path)
    (folder,) = tmp_path.glob("km-*")
    tenants = fresh_database.tenants()
    with pytest.raises(RestoreRefused, match="has its schema km_schema again"):
        restore(destination(fresh_database), open_bundle(folder, KEYS), only_if_gone=True)
    assert fresh_database.tenants() == tenants
