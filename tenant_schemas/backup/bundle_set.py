"""The bundles in a folder from which an installation is restored: the newest of the schema shared, and the newest of
each tenant. Bundles of past data and those of other installations do not count.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from tenant_schemas.backup.bundle import read_manifest
from tenant_schemas.backup.manifest import Manifest
from tenant_schemas.backup.shared_bundle import SHARED_BUNDLE
from tenant_schemas.backup.signature import BundleKeys, Origin
from tenant_schemas.backup.staging import folders_by_slug
from tenant_schemas.errors import BundleBroken

_MOVE: Final = "To restore from an older bundle, move this one to another folder and run it again."


@dataclass(frozen=True, slots=True)
class ChosenBundle:
    """The newest bundle of a tenant. With a `fault` a folder that is newer by its name can't be read: then the older
    one is not taken in silence.
    """

    folder: Path
    manifest: Manifest
    fault: str | None


@dataclass(frozen=True, slots=True)
class BundleSet:
    """The folder of the newest bundle of the schema shared, None if there is none, and the bundles of tenants, by
    tenant id. `others` are folders that this installation did not sign.
    """

    shared: Path | None
    tenants: Mapping[UUID, ChosenBundle]
    unread: Mapping[str, str]
    others: tuple[Path, ...]


def find_bundles(parent: Path, keys: BundleKeys) -> BundleSet:
    """The newest bundles in a folder, by the time in their manifests, which are read without their rows."""
    by_slug = folders_by_slug(parent)
    shared = by_slug.pop(SHARED_BUNDLE, None)
    chosen: dict[UUID, ChosenBundle] = {}
    others: list[Path] = []
    unread: dict[str, str] = {}
    for slug, names in by_slug.items():
        for name in names:
            try:
                manifest, origin = read_manifest(parent / name, keys)
            except BundleBroken as error:
                unread.setdefault(slug, f"{error} {_MOVE}")
                continue
            if origin is not Origin.OWN:
                others.append(parent / name)
                continue
            known = chosen.get(manifest.tenant.id)
            if known is None or manifest.taken_at > known.manifest.taken_at:
                chosen[manifest.tenant.id] = ChosenBundle(parent / name, manifest, unread.get(slug))
    return BundleSet(parent / shared[0] if shared else None, chosen, unread, tuple(others))
