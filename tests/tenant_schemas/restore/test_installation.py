"""A lost installation comes back from its bundles: the schema shared first, then each tenant, each on its own."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from app.shared_policy import SHARED_POLICY
from tenant_schemas.backup.bundle_set import find_bundles
from tenant_schemas.backup.shared_bundle import SharedBundle
from tenant_schemas.errors import RestoreRefused
from tenant_schemas.restore.installation import Origins, Status, TenantOutcome, restore_tenants
from tenant_schemas.restore.shared_restore import is_loaded, restore_shared
from tenant_schemas.testing.plugin import Database
from tests.factories.backups import KEYS
from tests.factories.bundles import SLUG, Furnished, audit, content, destination, without_log
from tests.factories.installations import lose, take_all, take_shared


def restored(database: Database, shared: SharedBundle) -> Mapping[str, TenantOutcome]:
    bundles = find_bundles(shared.folder.parent, KEYS)
    origins = Origins(bundles=bundles, keys=KEYS, identity_file=None, shared_taken_at=shared.manifest.taken_at)
    return {outcome.slug: outcome for outcome in restore_tenants(destination(database), origins)}


def load(database: Database, shared: SharedBundle) -> None:
    assert not is_loaded(destination(database), shared)
    restore_shared(destination(database), SHARED_POLICY, shared, {})


def test_every_tenant_has_its_rows_and_its_login_again(
    fresh_database: Database, furnished: Furnished, tmp_path: Path
) -> None:
    shared = take_all(fresh_database, tmp_path)
    before, tenants = content(fresh_database, SLUG), fresh_database.tenants()
    lose(fresh_database)
    load(fresh_database, shared)
    outcomes = restored(fresh_database, shared)
    assert {slug: outcome.status for slug, outcome in outcomes.items()} == dict.fromkeys(
        ("eur", "km", SLUG), Status.RESTORED
    )
    assert fresh_database.tenants() == tenants
    assert without_log(content(fresh_database, SLUG)) == without_log(before)
    assert audit(fresh_database, SLUG) == []
