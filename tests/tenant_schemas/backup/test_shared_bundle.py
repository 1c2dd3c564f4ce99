"""A bundle of the schema shared opens only if this installation signed it and every file is as it was written."""

import json
from pathlib import Path

import pytest

from tenant_schemas.backup.bundle import open_bundle
from tenant_schemas.backup.manifest import MANIFEST_NAME
from tenant_schemas.backup.shared_bundle import is_of_shared, open_shared_bundle
from tenant_schemas.errors import BundleBroken, BundleForeign
from tenant_schemas.testing.plugin import Database
from tests.factories.backups import FOREIGN_KEYS, KEYS, write_manifest
from tests.factories.installations import take_shared


def test_a_forged_damaged_or_foreign_one_is_refused(database: Database, tmp_path: Path) -> None:
    bundle = take_shared(database, tmp_path)
    folder, text = bundle.folder, (bundle.folder / MANIFEST_NAME).read_text()
    told = json.loads(text)
    (folder / MANIFEST_NAME).write_text(json.dumps(told | {"tenants": 99}))
    with pytest.raises(BundleBroken, match="changed after it was signed"):
        open_shared_bundle(folder, KEYS)
    write_manifest(folder, text, FOREIGN_KEYS)
    with pytest.raises(BundleForeign, match="BACKUP_KEY_FILE"):
        open_shared_bundle(folder, KEYS)
    write_manifest(folder, json.dumps(told | {"more": 1}))
    with pytest.raises(BundleBroken, match="unknown fields"):
        open_shared_bundle(folder, KEYS)
    write_manifest(folder, text)
    (folder / bundle.manifest.tables[0].file).write_bytes(b"x")
    with pytest.raises(BundleBroken, match="changed or damaged"):
        open_shared_bundle(folder, KEYS)


def test_neither_kind_of_bundle_is_taken_for_the_other(database: Database, tmp_path: Path) -> None:
    bundle = take_shared(database, tmp_path)
    assert is_of_shared(bundle.folder)
    with pytest.raises(BundleBroken, match="restore_installation"):
        open_bundle(bundle.folder, KEYS)
    told = json.loads((bundle.folder / MANIFEST_NAME).read_text())
    del told["content"]
    write_manifest(bundle.folder, json.dumps(told))
    with pytest.raises(BundleBroken, match="not that of a bundle of the schema shared"):
        open_shared_bundle(bundle.folder, KEYS)
