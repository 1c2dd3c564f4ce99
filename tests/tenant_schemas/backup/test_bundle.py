"""A folder is a bundle if it has a manifest and exactly the files that the manifest names."""

from pathlib import Path

import pytest

from tenant_schemas.backup.bundle import Bundle, open_bundle
from tenant_schemas.errors import BundleBroken
from tests.factories.backups import KEYS, rows_in

pytestmark = pytest.mark.both_servers


def test_a_file_that_is_missing_or_changed_is_named(bundle: Bundle) -> None:
    path = bundle.folder / "tables" / "wallets.copy.gz"
    content = path.read_bytes()
    for damage in (content[:-1], content + b"x", b""):
        path.write_bytes(damage)
        with pytest.raises(BundleBroken, match=r"tables/wallets\.copy\.gz.*sha256"):
            open_bundle(bundle.folder, KEYS)
    path.unlink()
    with pytest.raises(BundleBroken, match=r"tables/wallets\.copy\.gz is missing"):
        open_bundle(bundle.folder, KEYS)


def test_a_file_that_can_not_be_read_any_more_is_named(bundle: Bundle) -> None:
    opened = open_bundle(bundle.folder, KEYS)
    (bundle.folder / "tables" / "wallets.copy.gz").unlink()
    with pytest.raises(BundleBroken, match=r"wallets\.copy\.gz can't be read: .*No such file"):
        rows_in(opened, "wallets")


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(BundleBroken, match="is no bundle"):
            open_bundle(folder, KEYS)
