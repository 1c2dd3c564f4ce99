"""Retention: older bundles of a tenant go when enough newer ones are whole. Nothing else in the folder is touched."""

import os
from pathlib import Path

from tenant_schemas.backup.bundle import Bundle, open_bundle, read_manifest
from tenant_schemas.backup.manifest import MANIFEST_NAME, Manifest
from tenant_schemas.backup.staging import folders_by_slug, remove
from tenant_schemas.errors import BundleBroken


def keep_newest(bundle: Bundle, keep: int) -> list[Path]:
    """Keep the tenant's new bundle, whatever time the others say, and with it the `keep` newest whole ones and what is
    newer than the oldest of them; remove and return the others. A bundle with anything in it that its manifest doesn't
    name stays.
    """
    whole = 1
    removed = []
    for folder, manifest in _newest_first(bundle):
        if folder == bundle.folder:
            continue
        if whole < keep:
            whole += _is_whole(folder)
        elif _holds_nothing_else(folder, manifest):
            remove(folder)
            removed.append(folder)
    return removed


def _newest_first(bundle: Bundle) -> list[tuple[Path, Manifest]]:
    """All bundles with the tenant's slug and its id: the same name may have been another tenant's before."""
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


def _is_whole(folder: Path) -> bool:
    try:
        open_bundle(folder)
    except BundleBroken:
        return False
    return True


def _holds_nothing_else(folder: Path, manifest: Manifest) -> bool:
    named = {MANIFEST_NAME, *(each.file for each in manifest.files)}
    found = {os.path.relpath(os.path.join(path, file), folder) for path, _, files in os.walk(folder) for file in files}
    return found <= named
