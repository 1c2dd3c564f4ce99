"""An export has all rows of the tenant, in plain CSV, and no row of others."""

import csv
import json
from pathlib import Path

import pytest
from flask import Flask

from tenant_schemas.backup.export import export_tenant
from tenant_schemas.errors import BackupError
from tenant_schemas.testing.plugin import Database
from tests.factories.backups import source_of
from tests.factories.people import People

pytestmark = pytest.mark.both_servers


def read(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_table_is_a_file_of_csv_with_headers(fresh_database: Database, fresh_app: Flask, tmp_path: Path) -> None:
    people = People(fresh_app)
    person = people.make(km="member", name='Amra "A", Hadžić\nof two lines')
    people.wallet(person, "km", balance_minor=-0 + 1234)
    export = export_tenant(source_of(fresh_database), "km", tmp_path)
    (wallet,) = read(export.folder, "wallets")
    assert wallet["balance_minor"] == "1234"
    assert [row["name"] for row in read(export.folder, "users")] == ['Amra "A", Hadžić\nof two lines']
    told = json.loads((export.folder / "manifest.json").read_text(encoding="utf-8"))
    assert told["tenant"]["slug"] == "km"
    counted = {table["name"]: table["rows"] for table in told["tables"]}
    assert counted == {name: len(read(export.folder, name)) for name in counted}
    assert counted["wallets"] == counted["users"] == counted["memberships"] == 1
    assert counted["ledger_accounts"] > 3
    assert {path.stat().st_mode & 0o777 for path in export.folder.iterdir()} == {0o600}


def test_nothing_of_other_tenants_no_password_and_no_login_is_in_it(
    fresh_database: Database, fresh_app: Flask, tmp_path: Path
) -> None:
    people = People(fresh_app)
    password = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNo"
    both = people.make(km="member", eur="admin", password_hash=password)
    theirs = people.make(eur="member")
    for slug in ("km", "eur"):
        people.wallet(both, slug, balance_minor=10)
    eur = fresh_database.tenant("eur")
    folder = export_tenant(source_of(fresh_database), "km", tmp_path).folder
    text = "".join(path.read_text(encoding="utf-8") for path in folder.iterdir())
    assert str(both.user_id) in text
    secret = (password, "argon2", str(theirs.user_id), theirs.email, str(eur.id), eur.role_name, "tenant_km", "EUR")
    assert not [word for word in secret if word in text]


def test_what_fails_leaves_nothing(fresh_database: Database, tmp_path: Path) -> None:
    with pytest.raises(BackupError):
        export_tenant(source_of(fresh_database, "wallet_app"), "km", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_export_has_no_formula_unless_it_is_raw(fresh_database: Database, fresh_app: Flask, tmp_path: Path) -> None:
    """The raw one is read back by PostgreSQL exactly."""
    people = People(fresh_app)
    evil = '=HYPERLINK("http://x")\t@SUM(1)'
    person = people.make(km="member", name=evil)
    people.wallet(person, "km", balance_minor=5)
    rename = "ALTER TABLE km_schema.reconciliations RENAME source_hash TO \"=cmd|' /C calc'!A0\""
    fresh_database.as_superuser().execute(rename)
    folder = export_tenant(source_of(fresh_database), "km", tmp_path / "defused").folder
    assert [row["name"] for row in read(folder, "users")] == ["'=HYPERLINK(\"http://x\")\t'@SUM(1)"]
    assert "'=cmd" in (folder / "reconciliations.csv").read_text()
    raw = export_tenant(source_of(fresh_database), "km", tmp_path / "raw", is_raw=True).folder
    assert [row["name"] for row in read(raw, "users")] == [evil]
    assert [json.loads((each / "manifest.json").read_text())["formulas"] for each in (folder, raw)] == [
        "defused",
        "raw",
    ]
    superuser = fresh_database.as_superuser()
    superuser.execute("CREATE TEMP TABLE back (id uuid, email text, name text)")
    with superuser.cursor().copy("COPY back FROM STDIN (FORMAT csv, HEADER)") as copy:
        copy.write((raw / "users.csv").read_bytes())
    assert superuser.execute("SELECT name FROM back").fetchall() == [(evil,)]
