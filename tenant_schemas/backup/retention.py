"""Retention: removes a tenant's older bundles when enough newer ones are intact. Other files in the folder stay."""

from collections.abc import Iterator
from pathlib import Path

from tenant_schemas.backup.bundle import Bundle, file_names, open_bundle, read_manifest
from tenant_schemas.backup.bundle_files import files_in
from tenant_schemas.backup.manifest import Manifest
from tenant_schemas.backup.signature import BundleKeys, Origin
from tenant_schemas.backup.staging import folders_by_slug, remove
from tenant_schemas.errors import BackupError, BundleBroken


def keep_newest(bundle: Bundle, keep: int, keys: BundleKeys) -> list[Path]:
    """Remove the tenant's older bundles and return their folders. `bundle`, the new one, always stays and counts as the
    first of `keep`. The others are checked newest first, until `keep` bundles are intact; only the bundles after that
    are removed. A bundle with a file that its manifest does not name stays. A bundle that no key of this installation
    signed is neither counted nor removed: its time and its tenant may be anyone's word.
    """
    intact = 1
    removed = []
    for folder, manifest in _newest_first(bundle, keys):
        if folder == bundle.folder:
            continue
        if intact < keep:
            intact += _is_intact(folder, keys)
        elif _has_no_other_files(folder, manifest):
            remove(folder)
            removed.append(folder)
    return removed


def unsigned_bundles(bundle: Bundle, keys: BundleKeys) -> list[Path]:
    """The folders beside the bundle with the tenant's slug that no key of this installation signed."""
    found = []
    for folder in _folders(bundle):
        try:
            _, origin = read_manifest(folder, keys)
        except BundleBroken:
            continue
        if origin is not Origin.OWN:
            found.append(folder)
    return found


def _folders(bundle: Bundle) -> Iterator[Path]:
    parent = bundle.folder.parent
    for name in folders_by_slug(parent).get(bundle.manifest.tenant.slug, ()):
        if not (parent / name).is_symlink():
            yield parent / name


def _newest_first(bundle: Bundle, keys: BundleKeys) -> list[tuple[Path, Manifest]]:
    """All own bundles with the tenant's slug and id: an earlier tenant may have had the same slug."""
    found = []
    for folder in _folders(bundle):
        try:
            manifest, origin = read_manifest(folder, keys)
        except BundleBroken:
            continue
        if origin is Origin.OWN and manifest.tenant.id == bundle.manifest.tenant.id:
            found.append((folder, manifest))
    return sorted(found, key=lambda each: each[1].taken_at, reverse=True)


def _is_intact(folder: Path, keys: BundleKeys) -> bool:
    try:
        open_bundle(folder, keys)
    except BackupError:
        return False
    return True


def _has_no_other_files(folder: Path, manifest: Manifest) -> bool:
    try:
        return files_in(folder) <= file_names(manifest, Origin.OWN)
    except BundleBroken:
        return False
