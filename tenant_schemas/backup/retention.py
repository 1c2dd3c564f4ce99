"""Retention: removes a tenant's older bundles when enough newer ones are intact. Other files in the folder stay."""

import os
from pathlib import Path

from tenant_schemas.backup.bundle import Bundle, open_bundle, read_manifest
from tenant_schemas.backup.manifest import MANIFEST_NAME, Manifest
from tenant_schemas.backup.staging import folders_by_slug, remove
from tenant_schemas.errors import BundleBroken


def keep_newest(bundle: Bundle, keep: int) -> list[Path]:
    """Remove the tenant's older bundles and return their folders. `bundle`, the new one, always stays and counts as the
    first of `keep`. The others are checked newest first, until `keep` bundles are intact; only the bundles after that
    are removed. A bundle with a file that its manifest does not name stays.
    """
    intact = 1
    removed = []
    for folder, manifest in _newest_first(bundle):
        if folder == bundle.folder:
            continue
        if intact < keep:
            intact += _is_intact(folder)
        elif _has_no_other_files(folder, manifest):
            remove(folder)
            removed.append(folder)
    return removed


def _newest_first(bundle: Bundle) -> list[tuple[Path, Manifest]]:
    """All bundles with the tenant's slug and id: an earlier tenant may have had the same slug."""
    found = []
    parent = bundle.folder.parent
    for name in folders_by_slug(parent).get(bundle.manifest.tenant.slug, ()):
        folder = parent / name
        try:
            manifest = read_manifest(folder)
        except BundleBroken:
            continue
        if manifest.tenant.id == bundle.manifest.tenant.id and not folder.is_symlink():
            found.append((folder, manifest))
    return sorted(found, key=lambda each: each[1].taken_at, reverse=True)


def _is_intact(folder: Path) -> bool:
    try:
        open_bundle(folder)
    except BundleBroken:
        return False
    return True


def _has_no_other_files(folder: Path, manifest: Manifest) -> bool:
    named = {MANIFEST_NAME, *(each.file for each in manifest.files)}
    found = {os.path.relpath(os.path.join(path, file), folder) for path, _, files in os.walk(folder) for file in files}
    return found <= named
