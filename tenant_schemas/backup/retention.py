"""Retention: removes a tenant's older bundles if enough newer ones can be restored. Other files in the folder stay."""

from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from tenant_schemas.backup.bundle import Bundle, file_names, open_bundle, read_manifest
from tenant_schemas.backup.bundle_files import files_in
from tenant_schemas.backup.manifest import Manifest
from tenant_schemas.backup.shared_bundle import SharedManifest
from tenant_schemas.backup.signature import BundleKeys, Origin
from tenant_schemas.backup.staging import folders_by_slug, remove
from tenant_schemas.errors import BackupError, BundleBroken

AnyManifest = TypeVar("AnyManifest", Manifest, SharedManifest)


@dataclass(frozen=True, slots=True)
class Keep:
    """What to keep of a tenant's bundles: `number` of them or, if that is None, those that are no older than `age`, and
    at least one.
    """

    number: int | None = None
    age: timedelta = timedelta(0)

    def keeps(self, taken_at: datetime, counted: int) -> bool:
        """Whether a bundle of that moment stays, if so many newer ones count."""
        if self.number is not None:
            return counted < self.number
        return counted == 0 or taken_at >= datetime.now(UTC) - self.age


@dataclass(frozen=True, slots=True)
class Retention:
    """The bundles of one tenant that are to go, and those that stay but do not count, because they are damaged or a
    restore may refuse their rows. Both newest first.
    """

    outdated: list[Path] = field(default_factory=list)
    uncounted: list[Path] = field(default_factory=list)


def keep_newest(bundle: Bundle, keep: Keep, keys: BundleKeys) -> Retention:
    """Remove the bundles of the tenant that are older than those to keep. `bundle`, the new one, always stays."""
    tenant = bundle.manifest.tenant
    found = find_outdated(bundle.folder.parent, tenant.slug, tenant.id, keep, keys, new=bundle)
    for folder in found.outdated:
        remove(folder)
    return found


def find_outdated(
    parent: Path, slug: str, tenant_id: UUID, keep: Keep, keys: BundleKeys, *, new: Bundle | None = None
) -> Retention:
    """The bundles in `parent` that `keep_newest` would remove after the bundle `new`; without it as if one that counts
    was just made.

    Only a bundle counts that is intact and that a restore can load, as far as its backup saw. The bundles are looked at
    newest first, until enough count; only those after that go. One with a file that its manifest does not name stays.
    One that no key of this installation signed is neither counted nor removed: its time and its tenant may be anyone's
    word.
    """
    own = new and new.folder
    found = sort_out(
        ((folder, manifest) for folder, manifest in _newest_first(parent, slug, tenant_id, keys) if folder != own),
        keep,
        counted=new is None or new.manifest.is_restorable,
        is_good=lambda folder, manifest: manifest.is_restorable and opens(open_bundle, folder, keys),
        names_of=lambda manifest: file_names(manifest, Origin.OWN),
    )
    if new is not None and not new.manifest.is_restorable:
        found.uncounted.insert(0, new.folder)
    return found


def sort_out(
    older: Iterable[tuple[Path, AnyManifest]],
    keep: Keep,
    *,
    counted: int,
    is_good: Callable[[Path, AnyManifest], bool],
    names_of: Callable[[AnyManifest], Set[str]],
) -> Retention:
    """Which of the older bundles, newest first, are to go, if `counted` newer ones count. Only one that `is_good`
    counts, and one with a file that its manifest does not name (`names_of`) stays.
    """
    found = Retention()
    for folder, manifest in older:
        if keep.keeps(manifest.taken_at, counted):
            good = is_good(folder, manifest)
            counted += good
            found.uncounted.extend([] if good else [folder])
        elif _has_no_other_files(folder, names_of(manifest)):
            found.outdated.append(folder)
    return found


def opens(open_it: Callable[[Path, BundleKeys], object], folder: Path, keys: BundleKeys) -> bool:
    """Whether the bundle is intact."""
    try:
        open_it(folder, keys)
    except BackupError:
        return False
    return True


def unsigned_bundles(parent: Path, slug: str, keys: BundleKeys) -> list[Path]:
    """The folders in `parent` with the tenant's slug that no key of this installation signed."""
    found = []
    for folder in _folders(parent, slug):
        try:
            _, origin = read_manifest(folder, keys)
        except BundleBroken:
            continue
        if origin is not Origin.OWN:
            found.append(folder)
    return found


def _folders(parent: Path, slug: str) -> Iterator[Path]:
    for name in folders_by_slug(parent).get(slug, ()):
        if not (parent / name).is_symlink():
            yield parent / name


def _newest_first(parent: Path, slug: str, tenant_id: UUID, keys: BundleKeys) -> list[tuple[Path, Manifest]]:
    """All own bundles with the tenant's slug and id: an earlier tenant may have had the same slug."""
    found = []
    for folder in _folders(parent, slug):
        try:
            manifest, origin = read_manifest(folder, keys)
        except BundleBroken:
            continue
        if origin is Origin.OWN and manifest.tenant.id == tenant_id:
            found.append((folder, manifest))
    return sorted(found, key=lambda each: each[1].taken_at, reverse=True)


def _has_no_other_files(folder: Path, names: Set[str]) -> bool:
    try:
        return files_in(folder) <= names
    except BundleBroken:
        return False
