"""Retention of bundles of the schema shared: removes older ones when enough newer ones are intact."""

from pathlib import Path

from tenant_schemas.backup.bundle_files import files_in
from tenant_schemas.backup.manifest import MANIFEST_NAME
from tenant_schemas.backup.shared_bundle import SHARED_BUNDLE, SharedBundle, open_shared_bundle, read_shared_manifest
from tenant_schemas.backup.signature import SIGNATURE_NAME, BundleKeys, Origin
from tenant_schemas.backup.staging import folders_by_slug, remove
from tenant_schemas.errors import BackupError, BundleBroken


def keep_newest_shared(bundle: SharedBundle, keep: int, keys: BundleKeys) -> list[Path]:
    """Remove older bundles beside the new one, which counts as the first of `keep`, and return their folders. A damaged
    one is not counted. One that this installation did not sign, or with other files, is neither counted nor removed.
    """
    intact = 1
    removed = []
    for name in folders_by_slug(bundle.folder.parent).get(SHARED_BUNDLE, ()):
        folder = bundle.folder.parent / name
        if folder == bundle.folder or folder.is_symlink():
            continue
        if intact < keep:
            intact += _is_intact(folder, keys)
        elif _is_plain(folder, keys):
            remove(folder)
            removed.append(folder)
    return removed


def _is_intact(folder: Path, keys: BundleKeys) -> bool:
    try:
        open_shared_bundle(folder, keys)
    except BackupError:
        return False
    return True


def _is_plain(folder: Path, keys: BundleKeys) -> bool:
    """Whether it is ours and has no files but its own."""
    try:
        manifest, origin = read_shared_manifest(folder, keys)
        files = {MANIFEST_NAME, SIGNATURE_NAME, *(file.file for file in manifest.tables)}
        return origin is Origin.OWN and files_in(folder) <= files
    except BundleBroken:
        return False
