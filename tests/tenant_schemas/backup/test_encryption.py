"""An encrypted bundle opens for its recipients only."""

from pathlib import Path

import pyrage
import pytest
from flask import Flask

from tenant_schemas.backup.backup import back_up
from tenant_schemas.backup.bundle import Bundle, open_bundle
from tenant_schemas.backup.table_io import tally_of
from tenant_schemas.backup.writer import BackupOptions
from tenant_schemas.errors import BundleEncrypted, KeyRefused
from tenant_schemas.testing.plugin import Database
from tests.factories.backups import KEYS, rows_in, source_of
from tests.factories.people import People

pytestmark = pytest.mark.both_servers


@pytest.fixture
def identity(tmp_path: Path) -> tuple[str, Path]:
    """A recipient and its identity file, in the format of age-keygen."""
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
    options = BackupOptions(folder=tmp_path / "to", sealed_for=(recipient, str(other.to_public())), with_dump=True)
    taken = back_up(source_of(database), "km", options)
    assert all(each.file.endswith(".age") for each in taken.manifest.files)
    sealed = [path for path in taken.folder.rglob("*") if path.is_file() and not path.name.startswith("manifest")]
    assert all(path.read_bytes().startswith(b"age-encryption.org/v1\n") for path in sealed)
    assert not [
        path for path in taken.folder.rglob("*") if path.is_file() and person.email.encode() in path.read_bytes()
    ]

    opened = open_bundle(taken.folder, KEYS, file)
    assert person.email in {row["email"] for row in rows_in(opened, "users")}
    for rows in (*opened.manifest.tables, *opened.manifest.shared):
        tally = tally_of(opened.lines(rows))
        assert (tally.rows, tally.hash) == (rows.rows, rows.hash)

    with pytest.raises(BundleEncrypted, match="name a file"):
        rows_in(open_bundle(taken.folder, KEYS), "users")
    file.write_text(f"{pyrage.x25519.Identity.generate()}\n")
    with pytest.raises(BundleEncrypted, match="can't be decrypted with this identity"):
        rows_in(open_bundle(taken.folder, KEYS, file), "users")


def test_a_reader_that_stops_early_stops_the_opening(
    database: Database, tmp_path: Path, identity: tuple[str, Path]
) -> None:
    recipient, file = identity
    options = BackupOptions(folder=tmp_path / "to", sealed_for=(recipient,))
    bundle = open_bundle(back_up(source_of(database), "km", options).folder, KEYS, file)
    (accounts,) = [rows for rows in bundle.manifest.tables if rows.name == "ledger_accounts"]
    lines = bundle.lines(accounts)
    assert next(lines)
    lines.close()  # type: ignore[attr-defined]


def test_what_is_no_recipient_or_identity_is_refused(database: Database, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(KeyRefused, match="age1wrong"):
        back_up(source_of(database), "km", BackupOptions(folder=tmp_path / "to", sealed_for=("age1wrong",)))
    assert not (tmp_path / "to").exists()
    for content in ("", "# nothing\n", "AGE-SECRET-KEY-1X\n"):
        (tmp_path / "key.txt").write_text(content)
        with pytest.raises(KeyRefused, match=r"key\.txt"):
            open_bundle(bundle.folder, KEYS, tmp_path / "key.txt")
