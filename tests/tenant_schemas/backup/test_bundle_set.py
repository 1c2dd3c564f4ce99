"""A restore of an installation takes the newest bundles, and never an older one in silence."""

import json
import shutil
from pathlib import Path
from uuid import UUID

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.bundle_set import find_bundles
from tenant_schemas.backup.manifest import MANIFEST_NAME
from tests.factories.backups import FOREIGN_KEYS, KEYS, write_manifest


def copy_of(bundle: Bundle, slug: str, day: int, **tenant: str) -> Path:
    """The bundle as one of another day, and perhaps of a tenant with another name or id."""
    folder = shutil.copytree(bundle.folder, bundle.folder.parent / f"{slug}-2020010{day}T000000Z")
    told = json.loads((folder / MANIFEST_NAME).read_text())
    told["taken_at"] = f"2020-01-0{day}T00:00:00+00:00"
    told["tenant"] |= {"slug": slug} | tenant
    write_manifest(Path(folder), json.dumps(told))
    return Path(folder)


def test_the_newest_bundle_of_a_tenant_counts_whatever_its_name_was(bundle: Bundle) -> None:
    tenant_id = bundle.manifest.tenant.id
    shutil.move(bundle.folder, bundle.folder.with_name("km-20200101T000000Z"))
    old = Bundle(bundle.folder.with_name("km-20200101T000000Z"), bundle.manifest, bundle.origin)
    renamed = copy_of(old, "mark", 3)
    other = copy_of(old, "km", 5, id="9f2c1f6e-0d52-4b43-8a51-5b9a3f0e7c11")
    old.folder.with_name("km-20200109T000000Z-data-20190101T000000Z").mkdir()
    old.folder.with_name("km-20200109T000000Z.partial").mkdir()
    write_manifest(old.folder, json.dumps(json.loads((renamed / MANIFEST_NAME).read_text())), FOREIGN_KEYS)
    found = find_bundles(old.folder.parent, KEYS)
    assert found.shared is None
    assert {tenant: chosen.folder for tenant, chosen in found.tenants.items()} == {
        tenant_id: renamed,
        UUID("9f2c1f6e-0d52-4b43-8a51-5b9a3f0e7c11"): other,
    }
    assert found.others == (old.folder,)
    assert not any(chosen.fault for chosen in found.tenants.values())


def test_a_newer_one_that_cannot_be_read_is_a_fault_of_the_older(bundle: Bundle) -> None:
    newer = copy_of(bundle, "km", 9)
    shutil.move(newer, bundle.folder.with_name("km-20990101T000000Z"))
    (bundle.folder.with_name("km-20990101T000000Z") / MANIFEST_NAME).write_text("{")
    (chosen,) = find_bundles(bundle.folder.parent, KEYS).tenants.values()
    assert chosen.folder == bundle.folder
    assert chosen.fault is not None
    assert "km-20990101T000000Z" in chosen.fault
    assert "move this one" in chosen.fault
