"""What a bundle on disk must be to be taken for one: its manifest, its files, its seal, and how many are kept."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyrage
import pytest
from flask import Flask

from tenant_schemas.backup.backup import back_up
from tenant_schemas.backup.bundle import Bundle, open_bundle
from tenant_schemas.backup.manifest import manifest_from_json
from tenant_schemas.backup.retention import keep_newest
from tenant_schemas.backup.table_io import tally_of
from tenant_schemas.backup.writer import Shape
from tenant_schemas.errors import AgeKeyRefused, BundleBroken, BundleEncrypted
from tenant_schemas.testing.plugin import Database
from tests.factories.people import People
from tests.fleet.test_backup import rows_in, source_of


@pytest.fixture
def bundle(database: Database, app: Flask, tmp_path: Path) -> Bundle:
    people = People(app)
    people.wallet(people.make(km="member", name="Amra"), "km", balance_minor=77)
    return back_up(source_of(database), "km", Shape(folder=tmp_path))


def edited(bundle: Bundle, edit: Callable[[dict[str, Any]], object]) -> Path:
    path = bundle.folder / "manifest.json"
    told = json.loads(path.read_text())
    edit(told)
    path.write_text(json.dumps(told))
    return bundle.folder


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda told: told.update(format=2), "format 2"),
        (lambda told: told.pop("format"), "format None"),
        (lambda told: told.pop("proof"), r"lacks \['proof'\]"),
        (lambda told: told.update(more=1), r"\['more'\] too much"),
        (lambda told: told["tenant"].update(id="x"), "tenant.id"),
        (lambda told: told["tenant"].update(status="sold"), "tenant.status"),
        (lambda told: told["tables"][0].update(rows="3"), "rows"),
        (lambda told: told["tables"][0].update(rows=-1), "rows"),
        (lambda told: told["tables"][0].update(columns="id"), "columns"),
        (lambda told: told["tables"][0].update(file="../../etc/passwd"), "outside"),
        (lambda told: told["tables"][0].update(file="/etc/passwd"), "outside"),
        (lambda told: told["tables"][0].update(sha256="0"), "sha256"),
        (lambda told: told.update(taken_at="yesterday"), "taken_at"),
        (lambda told: told.update(taken_at="2026-01-01T00:00:00"), "taken_at: it has no time zone"),
        (lambda told: told.update(taken_at="0001-01-01T00:00:00+14:00"), "taken_at"),
        (lambda told: told["tables"][0].update(file="tables/\0"), "NUL"),
        (lambda told: told["tables"][0].update(file="tables/\ud800"), "surrogates"),
    ],
)
def test_a_manifest_that_is_not_exactly_one_is_refused_with_the_place(
    bundle: Bundle, edit: Callable[[dict[str, Any]], object], says: str
) -> None:
    with pytest.raises(BundleBroken, match=says):
        open_bundle(edited(bundle, edit))


@pytest.mark.parametrize("text", ["", "[]", "null", '"x"', "{", '{"format": 1}', "\ud800", "[" * 100_000])
def test_no_text_at_all_makes_reading_a_manifest_fail_otherwise(text: str) -> None:
    with pytest.raises(BundleBroken):
        manifest_from_json(text)


def test_a_manifest_comes_back_from_its_json(bundle: Bundle) -> None:
    assert manifest_from_json(bundle.manifest.to_json()) == bundle.manifest


def test_a_file_that_is_missing_or_changed_is_named(bundle: Bundle) -> None:
    path = bundle.folder / "tables" / "wallets.copy.gz"
    content = path.read_bytes()
    for damage in (content[:-1], content + b"x", b""):
        path.write_bytes(damage)
        with pytest.raises(BundleBroken, match=r"tables/wallets\.copy\.gz.*sha256"):
            open_bundle(bundle.folder)
    path.unlink()
    with pytest.raises(BundleBroken, match=r"tables/wallets\.copy\.gz: No such file"):
        open_bundle(bundle.folder)


def test_a_file_that_can_not_be_read_any_more_is_named(bundle: Bundle) -> None:
    opened = open_bundle(bundle.folder)
    (bundle.folder / "tables" / "wallets.copy.gz").unlink()
    with pytest.raises(BundleBroken, match=r"wallets\.copy\.gz can't be read: .*No such file"):
        rows_in(opened, "wallets")


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(BundleBroken, match="is no bundle"):
            open_bundle(folder)


# The seal.


@pytest.fixture
def identity(tmp_path: Path) -> tuple[str, Path]:
    """A recipient, and the file of its identity as age-keygen writes it."""
    made = pyrage.x25519.Identity.generate()
    file = tmp_path / "key.txt"
    file.write_text(f"# created: today\n# public key: {made.to_public()}\n{made}\n")
    return str(made.to_public()), file


def test_a_sealed_bundle_opens_for_its_recipients_only(
    database: Database, app: Flask, tmp_path: Path, identity: tuple[str, Path]
) -> None:
    people = People(app)
    person = people.make(km="member", name="Amra")
    people.wallet(person, "km", balance_minor=77)
    recipient, file = identity
    other = pyrage.x25519.Identity.generate()
    shape = Shape(folder=tmp_path / "to", sealed_for=(recipient, str(other.to_public())), with_dump=True)
    taken = back_up(source_of(database), "km", shape)
    assert all(each.file.endswith(".age") for each in taken.manifest.files)
    sealed = [path for path in taken.folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert all(path.read_bytes().startswith(b"age-encryption.org/v1\n") for path in sealed)
    assert not [
        path for path in taken.folder.rglob("*") if path.is_file() and person.email.encode() in path.read_bytes()
    ]

    opened = open_bundle(taken.folder, file)
    assert person.email in {row["email"] for row in rows_in(opened, "users")}
    for rows in (*opened.manifest.tables, *opened.manifest.shared):
        tally = tally_of(opened.lines(rows))
        assert (tally.rows, tally.hash) == (rows.rows, rows.hash)

    with pytest.raises(BundleEncrypted, match="name a file"):
        rows_in(open_bundle(taken.folder), "users")
    file.write_text(f"{pyrage.x25519.Identity.generate()}\n")
    with pytest.raises(BundleEncrypted, match="can't be opened with this identity"):
        rows_in(open_bundle(taken.folder, file), "users")


def test_a_reader_that_stops_early_stops_the_opening(
    database: Database, tmp_path: Path, identity: tuple[str, Path]
) -> None:
    recipient, file = identity
    bundle = open_bundle(
        back_up(source_of(database), "km", Shape(folder=tmp_path / "to", sealed_for=(recipient,))).folder, file
    )
    (accounts,) = [rows for rows in bundle.manifest.tables if rows.name == "ledger_accounts"]
    lines = bundle.lines(accounts)
    assert next(lines)
    lines.close()  # type: ignore[attr-defined]


def test_what_is_no_recipient_or_identity_is_refused(database: Database, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(AgeKeyRefused, match="age1wrong"):
        back_up(source_of(database), "km", Shape(folder=tmp_path / "to", sealed_for=("age1wrong",)))
    assert not (tmp_path / "to").exists()
    for content in ("", "# nothing\n", "AGE-SECRET-KEY-1X\n"):
        (tmp_path / "key.txt").write_text(content)
        with pytest.raises(AgeKeyRefused, match=r"key\.txt"):
            open_bundle(bundle.folder, tmp_path / "key.txt")


# Retention.


def copies(bundle: Bundle, *days: int) -> list[Path]:
    """The same bundle as of these days of an earlier year."""
    made = []
    for day in days:
        folder = bundle.folder.with_name(f"km-200001{day:02}T000000Z")
        shutil.copytree(bundle.folder, folder)
        edited(
            Bundle(folder, bundle.manifest), lambda told, day=day: told.update(taken_at=f"2000-01-{day:02}T00:00:00Z")
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
        Bundle(another, bundle.manifest),
        lambda told: (
            told["tenant"].update(id="00000000-0000-4000-8000-000000000000"),
            told.update(taken_at="2000-01-01T00:00:09Z"),
        ),
    )
    with_more = copies(bundle, 6)[0].rename(parent / "km-20000101T000001Z")
    edited(Bundle(with_more, bundle.manifest), lambda told: told.update(taken_at="2000-01-01T00:00:01Z"))
    (with_more / "notes.txt").write_text("mine")
    (parent / "km-19990101T000000Z").mkdir()
    (parent / "km-19990101T000001Z").symlink_to(first)
    (parent / "readme").write_text("x")
    before = set(os.listdir(parent))
    assert sorted(keep_newest(bundle, 4)) == [first]
    assert set(os.listdir(parent)) == before - {first.name}
    open_bundle(second)
    assert sorted(keep_newest(bundle, 2)) == [second, broken, fourth]
    assert keep_newest(bundle, 2) == []


def test_a_broken_bundle_does_not_count_as_one_that_is_kept(bundle: Bundle) -> None:
    old, newer = copies(bundle, 1, 2)
    (newer / "shared" / "users.copy.gz").unlink()
    assert keep_newest(bundle, 2) == []
    assert old.exists()


def test_the_bundle_just_taken_stays_whatever_time_others_say(bundle: Bundle) -> None:
    """As where a clock was wrong once, or somebody edited a manifest."""
    for year in (2098, 2099):
        folder = bundle.folder.with_name(f"km-{year}0101T000000Z")
        shutil.copytree(bundle.folder, folder)
        (folder / "manifest.json").write_text(
            replace(bundle.manifest, taken_at=datetime(year, 1, 1, tzinfo=UTC)).to_json()
        )
    assert [folder.name for folder in keep_newest(bundle, 2)] == ["km-20980101T000000Z"]
    open_bundle(bundle.folder)


def test_a_bundle_beside_whose_time_has_no_zone_is_none_and_stops_nothing(bundle: Bundle) -> None:
    (folder,) = copies(bundle, 1)
    edited(Bundle(folder, bundle.manifest), lambda told: told.update(taken_at="2000-01-01T00:00:00"))
    assert keep_newest(bundle, 1) == []
