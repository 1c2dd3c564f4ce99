"""Retention of bundles of the schema shared: removes older ones when enough newer ones are intact."""

from collections.abc import Iterator
from pathlib import Path

from tenant_schemas.backup.manifest import MANIFEST_NAME
from tenant_schemas.backup.retention import Keep, Retention, opens, sort_out
from tenant_schemas.backup.shared_bundle import (
    SHARED_BUNDLE,
    SharedBundle,
    SharedManifest,
    open_shared_bundle,
    read_shared_manifest,
)
from tenant_schemas.backup.signature import SIGNATURE_NAME, BundleKeys, Origin
from tenant_schemas.backup.staging import folders_by_slug, remove
from tenant_schemas.errors import BundleBroken


def keep_newest_shared(bundle: SharedBundle, keep: Keep, keys: BundleKeys) -> Retention:
    """Remove the bundles of the schema shared that are older than those to keep. `bundle`, the new one, always stays
    and counts.
    """
    found = find_outdated_shared(bundle.folder.parent, keep, keys, new=bundle.folder)
    for folder in found.outdated:
        remove(folder)
    return found


def find_outdated_shared(parent: Path, keep: Keep, keys: BundleKeys, *, new: Path | None = None) -> Retention:
    """The bundles in `parent` that `keep_newest_shared` would remove after the bundle `new`; without it as if one was
    just made. A damaged one is not counted. One that this installation did not sign is neither counted nor removed, and
    one with other files stays.
    """
    return sort_out(
        ((folder, manifest) for folder, manifest in _newest_first(parent, keys) if folder != new),
        keep,
        counted=1,
        is_good=lambda folder, _: opens(open_shared_bundle, folder, keys),
        names_of=lambda manifest: {MANIFEST_NAME, SIGNATURE_NAME, *(file.file for file in manifest.tables)},
    )


def _newest_first(parent: Path, keys: BundleKeys) -> Iterator[tuple[Path, SharedManifest]]:
    """All own bundles: their names are their times."""
    for name in folders_by_slug(parent).get(SHARED_BUNDLE, ()):
        try:
            manifest, origin = read_shared_manifest(parent / name, keys)
        except BundleBroken:
            continue
        if origin is Origin.OWN and not (parent / name).is_symlink():
            yield parent / name, manifest
