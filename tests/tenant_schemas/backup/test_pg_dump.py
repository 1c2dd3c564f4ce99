"""pg_dump's file beside a bundle's rows: complete, of that schema alone, and no password that other users can read."""

import subprocess
from pathlib import Path

import pytest

from tenant_schemas.backup import pg_dump
from tenant_schemas.backup.backup import back_up
from tenant_schemas.backup.bundle import open_bundle
from tenant_schemas.backup.pg_dump import dump_schema, newest_pg_dump
from tenant_schemas.backup.writer import BackupOptions
from tenant_schemas.errors import DumpFailed
from tenant_schemas.testing.plugin import Database
from tests.factories.backups import KEYS, fill, source_of

pytestmark = pytest.mark.both_servers


def listed(file: Path) -> str:
    return subprocess.run(
        [newest_pg_dump().with_name("pg_restore"), "--list", file], check=True, capture_output=True, text=True
    ).stdout


def snapshot_of(database: Database) -> str:
    """A snapshot of the present, until the database is closed."""
    holder = database.as_superuser()
    holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    ((snapshot,),) = holder.execute("SELECT pg_export_snapshot()").fetchall()
    return str(snapshot)


@pytest.mark.parametrize("role_name", ["wallet_backup", "wallet_migrator"])
def test_the_dump_is_of_that_schema_alone_and_pg_restore_reads_it(
    fresh_database: Database, tmp_path: Path, role_name: str
) -> None:
    fill(fresh_database, 10)
    bundle = open_bundle(
        back_up(source_of(fresh_database, role_name), "km", BackupOptions(folder=tmp_path, with_dump=True)).folder, KEYS
    )
    assert "TABLE DATA km_schema wallets" in listed(bundle.folder / "schema.dump")
    assert "eur_schema" not in listed(bundle.folder / "schema.dump")


def test_a_dump_sees_what_its_snapshot_sees(fresh_database: Database, tmp_path: Path) -> None:
    snapshot = snapshot_of(fresh_database)
    fill(fresh_database, 1000)
    file = tmp_path / "schema.dump"
    file.write_bytes(b"".join(dump_schema(source_of(fresh_database).conninfo, "km_schema", snapshot, 1000)))
    command = [newest_pg_dump().with_name("pg_restore"), "--data-only", "--table=reconciliations", "--file=-", file]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "COPY km_schema.reconciliations" in said
    assert "BAM" not in said


@pytest.mark.parametrize("name", ["a*", "a?b", "A_b", 'a"b', "a.b", "a|b", "a b"])
def test_a_name_that_would_be_a_pattern_is_a_name(fresh_database: Database, tmp_path: Path, name: str) -> None:
    """Among schemas that such a pattern, or the name in lower case, would also match."""
    superuser = fresh_database.as_superuser()
    quoted = '"' + name.replace('"', '""') + '"'
    for schema in (quoted, "ab", "axb", "a_b", "a", "b"):
        superuser.execute(f"CREATE SCHEMA {schema}")
        superuser.execute(f"CREATE TABLE {schema}.t ()")
    file = tmp_path / "schema.dump"
    file.write_bytes(b"".join(dump_schema(fresh_database.url(), name, snapshot_of(fresh_database), 1000)))
    tables = [
        line.split(" TABLE ")[1] for line in listed(file).splitlines() if " TABLE " in line and "DATA" not in line
    ]
    assert tables == [f"{name} t postgres"]


def test_a_schema_that_is_not_there_is_an_error_and_no_empty_dump(fresh_database: Database) -> None:
    with pytest.raises(DumpFailed, match="no matching schemas"):
        list(dump_schema(fresh_database.url(), "nope", snapshot_of(fresh_database), 1000))


def test_a_role_that_may_not_read_everything_leaves_no_file(fresh_database: Database, tmp_path: Path) -> None:
    """The trap: pg_dump writes the header first, and pg_restore lists such a truncated file."""
    superuser = fresh_database.as_superuser()
    superuser.execute("ALTER TABLE km_schema.wallets ENABLE ROW LEVEL SECURITY")
    superuser.execute("ALTER ROLE wallet_backup NOBYPASSRLS")
    try:
        snapshot = snapshot_of(fresh_database)
        pieces, said = [], ""
        try:
            for piece in dump_schema(source_of(fresh_database).conninfo, "km_schema", snapshot, 1000):
                pieces.append(piece)
        except DumpFailed as error:
            said = str(error)
        assert "row-level security" in said
        assert pieces, "pg_dump wrote nothing, so this test proves nothing"
    finally:
        superuser.execute("ALTER ROLE wallet_backup BYPASSRLS")


def test_a_dump_that_fails_takes_the_bundle_with_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "pg_dump"
    broken.write_text("#!/bin/sh\necho PGDMP-the-beginning\necho 'out of patience' >&2\nexit 1\n")
    broken.chmod(0o700)
    monkeypatch.setattr(pg_dump, "newest_pg_dump", lambda: broken)
    monkeypatch.setattr(pg_dump, "_version", lambda _: (99,))
    with pytest.raises(DumpFailed, match="out of patience"):
        back_up(source_of(database), "km", BackupOptions(folder=tmp_path / "to", with_dump=True))
    assert list((tmp_path / "to").iterdir()) == []


def test_an_older_pg_dump_than_the_server_is_refused(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pg_dump, "_version", lambda _: (14, 2))
    with pytest.raises(DumpFailed, match="older than the server"):
        back_up(source_of(database), "km", BackupOptions(folder=tmp_path, with_dump=True))
    assert list(tmp_path.iterdir()) == []


def test_the_newest_pg_dump_at_hand_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if an older one is first on the PATH, as is common on Debian."""
    old = tmp_path / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.24'\n")
    old.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    newest_pg_dump.cache_clear()
    try:
        assert newest_pg_dump() != old
    finally:
        newest_pg_dump.cache_clear()


def test_the_password_is_not_on_the_command_line(fresh_database: Database) -> None:
    fill(fresh_database, 20_000)
    snapshot = snapshot_of(fresh_database)
    source = source_of(fresh_database)
    running = dump_schema(source.conninfo, "km_schema", snapshot, 1000)
    next(running)
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _is_readable(path)]
    dumps = [line for line in lines if b"pg_dump" in line and snapshot.encode() in line]
    running.close()
    assert dumps
    assert not [line for line in dumps if fresh_database.passwords["wallet_backup"].encode() in line]


def _is_readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True
