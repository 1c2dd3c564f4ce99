"""The bundle of the schema shared has all rows that tenants' bundles lack, and is always encrypted."""

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pyrage
import pytest
from flask import Flask
from psycopg import sql

from tenant_schemas.backup import shared_backup
from tenant_schemas.backup.shared_backup import back_up_shared
from tenant_schemas.backup.shared_bundle import SharedBundle, open_shared_bundle
from tenant_schemas.backup.writer import BackupOptions
from tenant_schemas.errors import BackupError, BundleEncrypted
from tenant_schemas.testing.plugin import Database
from tests.factories.backups import KEYS, source_of
from tests.factories.installations import SHARED_POLICY, take_shared
from tests.factories.people import People

HASH = "$argon2id$of-a-member"


def rows_in(bundle: SharedBundle, table: str) -> int:
    file = bundle.find_file(table)
    assert file is not None
    return sum(1 for _ in bundle.lines(file))


def test_it_has_every_row_of_every_table_that_the_policy_does_not_leave_out(
    database: Database, app: Flask, tmp_path: Path
) -> None:
    People(app).make(password_hash=HASH, km="member")
    bundle = take_shared(database, tmp_path)
    superuser = database.as_superuser()
    tables = superuser.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'shared'").fetchall()
    wanted = {name for (name,) in tables} - SHARED_POLICY.left_out.keys() - {"alembic_version"}
    assert {file.name for file in bundle.manifest.tables} == wanted
    for name in wanted - {"account_mails"}:
        ((count,),) = superuser.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier("shared", name)))
        assert rows_in(bundle, name) == count, name
    users = bundle.find_file("users")
    assert users is not None
    assert HASH.encode() in b"".join(bundle.lines(users))


def test_without_a_recipient_its_files_are_encrypted_for_the_key_that_signs(
    database: Database, app: Flask, tmp_path: Path
) -> None:
    bundle = take_shared(database, tmp_path)
    assert all(file.file.endswith(".age") for file in bundle.manifest.tables)
    with pytest.raises(BundleEncrypted):
        list(SharedBundle(bundle.folder, bundle.manifest, bundle.origin).lines(bundle.manifest.tables[0]))


def test_with_a_recipient_only_its_identity_opens_them(database: Database, tmp_path: Path) -> None:
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "identity.txt").write_text(str(identity))
    bundle = take_shared(database, tmp_path, str(identity.to_public()))
    with pytest.raises(BundleEncrypted):
        rows_in(bundle, "users")
    opened = open_shared_bundle(bundle.folder, KEYS, tmp_path / "identity.txt")
    assert rows_in(opened, "tenants") == bundle.manifest.tenants


def test_a_table_that_stays_locked_is_named_and_leaves_nothing(database: Database, tmp_path: Path) -> None:
    source = replace(source_of(database), lock_timeout_ms=50)
    with psycopg.connect(database.url()) as other:
        other.execute("LOCK TABLE shared.categories IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(BackupError, match="shared can't be read"):
            back_up_shared(source, SHARED_POLICY, BackupOptions(folder=tmp_path / "locked"))
    assert not (tmp_path / "locked").exists() or not list((tmp_path / "locked").iterdir())


def test_a_table_that_is_added_while_it_waits_for_locks_is_in_it(
    fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns and rows are of one moment."""
    before = shared_backup.tables_in_order
    asked: list[str] = []

    def and_then_add(connection: psycopg.Connection[object], schema_name: str) -> object:
        found = before(connection, schema_name)
        if not asked:
            fresh_database.as_superuser().execute("CREATE TABLE shared.added AS SELECT 1 AS number")
        asked.append(schema_name)
        return found

    monkeypatch.setattr(shared_backup, "tables_in_order", and_then_add)
    bundle = take_shared(fresh_database, tmp_path / uuid4().hex)
    assert rows_in(bundle, "added") == 1
