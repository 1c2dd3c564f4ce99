"""The newest whole bundles of a tenant are kept, and nothing else is touched."""

import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tenant_schemas.backup.bundle import Bundle, open_bundle
from tenant_schemas.backup.retention import Keep, find_outdated, keep_newest, unsigned_bundles
from tenant_schemas.backup.signature import SIGNATURE_NAME, Origin
from tenant_schemas.schema_diff.effects import DriftedObject, Effect
from tests.factories.backups import FOREIGN_KEYS, KEYS, edited, write_manifest

pytestmark = pytest.mark.both_servers


def copies(bundle: Bundle, *days: int) -> list[Path]:
    """The same bundle, as if taken on these days of an earlier year."""
    made = []
    for day in days:
        folder = bundle.folder.with_name(f"km-200001{day:02}T000000Z")
        shutil.copytree(bundle.folder, folder)
        edited(
            Bundle(folder, bundle.manifest, Origin.OWN),
            lambda told, day=day: told.update(taken_at=f"2000-01-{day:02}T00:00:00Z"),
        )
        made.append(folder)
    return made


def test_the_newest_whole_bundles_are_kept_and_nothing_else_is_touched(bundle: Bundle) -> None:
    parent = bundle.folder.parent
    first, second, broken, fourth, _fifth = copies(bundle, 1, 2, 3, 4, 5)
    (broken / "tables" / "wallets.copy.gz").write_bytes(b"")
    another = parent / "km-20000101T000009Z"
    shutil.copytree(bundle.folder, another)
    edited(
        Bundle(another, bundle.manifest, Origin.OWN),
        lambda told: (
            told["tenant"].update(id="00000000-0000-4000-8000-000000000000"),
            told.update(taken_at="2000-01-01T00:00:09Z"),
        ),
    )
    with_more = copies(bundle, 6)[0].rename(parent / "km-20000101T000001Z")
    edited(Bundle(with_more, bundle.manifest, Origin.OWN), lambda told: told.update(taken_at="2000-01-01T00:00:01Z"))
    (with_more / "notes.txt").write_text("mine")
    (parent / "km-19990101T000000Z").mkdir()
    (parent / "km-19990101T000001Z").symlink_to(first)
    (parent / "readme").write_text("x")
    before = set(os.listdir(parent))
    assert sorted(keep_newest(bundle, Keep(4), KEYS).outdated) == [first]
    assert set(os.listdir(parent)) == before - {first.name}
    open_bundle(second, KEYS)
    assert sorted(keep_newest(bundle, Keep(2), KEYS).outdated) == [second, broken, fourth]
    assert keep_newest(bundle, Keep(2), KEYS).outdated == []


def test_a_broken_bundle_does_not_count_as_one_that_is_kept(bundle: Bundle) -> None:
    old, newer = copies(bundle, 1, 2)
    (newer / "shared" / "users.copy.gz").unlink()
    assert keep_newest(bundle, Keep(2), KEYS).outdated == []
    assert old.exists()


def test_the_bundle_just_taken_stays_whatever_time_others_say(bundle: Bundle) -> None:
    """For example after a wrong clock or an edited manifest."""
    for year in (2098, 2099):
        folder = bundle.folder.with_name(f"km-{year}0101T000000Z")
        shutil.copytree(bundle.folder, folder)
        write_manifest(folder, replace(bundle.manifest, taken_at=datetime(year, 1, 1, tzinfo=UTC)).to_json())
    assert [folder.name for folder in keep_newest(bundle, Keep(2), KEYS).outdated] == ["km-20980101T000000Z"]
    open_bundle(bundle.folder, KEYS)


def test_a_bundle_beside_whose_time_has_no_zone_is_none_and_stops_nothing(bundle: Bundle) -> None:
    (folder,) = copies(bundle, 1)
    edited(Bundle(folder, bundle.manifest, Origin.OWN), lambda told: told.update(taken_at="2000-01-01T00:00:00"))
    assert keep_newest(bundle, Keep(1), KEYS).outdated == []


def test_a_bundle_of_another_installation_is_neither_counted_nor_removed(bundle: Bundle) -> None:
    """It says that it is newer than all others, and that it is this tenant's."""
    first, second, foreign, unsigned = copies(bundle, 1, 2, 3, 4)
    for folder in (foreign, unsigned):
        later = replace(bundle.manifest, taken_at=datetime(2099, 1, 1, tzinfo=UTC))
        write_manifest(folder, later.to_json(), FOREIGN_KEYS)
    (unsigned / SIGNATURE_NAME).unlink()
    assert keep_newest(bundle, Keep(2), KEYS).outdated == [first]
    assert set(unsigned_bundles(bundle.folder.parent, "km", KEYS)) == {foreign, unsigned}
    assert keep_newest(bundle, Keep(1), KEYS).outdated == [second]
    assert foreign.exists()
    assert unsigned.exists()


def drifted(bundle: Bundle, effect: Effect) -> Bundle:
    """The bundle, as if taken of a schema with such an object."""
    manifest = replace(bundle.manifest, drift=(DriftedObject("relation extra", effect),))
    write_manifest(bundle.folder, manifest.to_json())
    return open_bundle(bundle.folder, KEYS)


def test_a_bundle_whose_rows_a_restore_may_refuse_does_not_count(bundle: Bundle) -> None:
    """Else the last good one would go when the new ones are of no use."""
    good, older = reversed(copies(bundle, 1, 2))
    bad = drifted(Bundle(copies(bundle, 3)[0], bundle.manifest, Origin.OWN), Effect.BREAKS)
    write_manifest(bad.folder, replace(bad.manifest, taken_at=datetime(2000, 1, 3, tzinfo=UTC)).to_json())
    new = drifted(bundle, Effect.BREAKS)
    kept = keep_newest(new, Keep(1), KEYS)
    assert (kept.outdated, kept.uncounted) == ([older], [new.folder, bad.folder])
    assert good.exists()


def test_a_bundle_without_an_object_that_the_migrations_do_not_make_counts(bundle: Bundle) -> None:
    (old,) = copies(bundle, 1)
    assert keep_newest(drifted(bundle, Effect.LOST), Keep(1), KEYS).outdated == [old]


def test_by_age_the_young_stay_and_the_last_good_one_always(bundle: Bundle) -> None:
    old, older = reversed(copies(bundle, 1, 2))
    (young,) = copies(bundle, 3)
    write_manifest(young, replace(bundle.manifest, taken_at=datetime.now(UTC) - timedelta(days=2)).to_json())
    tenant = bundle.manifest.tenant
    keep = Keep(age=timedelta(days=3))
    found = find_outdated(bundle.folder.parent, "km", tenant.id, keep, KEYS, new=bundle)
    assert found.outdated == [old, older]
    for folder in (bundle.folder, young):
        (folder / "tables" / "wallets.copy.gz").write_bytes(b"")
    new = replace(bundle, manifest=replace(bundle.manifest, drift=(DriftedObject("column a.b", Effect.BREAKS),)))
    assert keep_newest(new, keep, KEYS).outdated == [older]
