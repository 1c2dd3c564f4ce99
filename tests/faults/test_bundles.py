"""A backup or restore is killed in the middle of its work: it leaves no invalid bundle and no half restored tenant, and
the next one removes the leftovers.
"""

import signal
from pathlib import Path
from random import Random
from time import sleep

import psycopg
import pytest

from app.tenancy import MIGRATIONS
from tenant_schemas.backup.backup import back_up
from tenant_schemas.backup.bundle import open_bundle
from tenant_schemas.backup.writer import BackupOptions
from tenant_schemas.restore.restore import restore
from tenant_schemas.testing.plugin import Database, make_tenant
from tests.factories.backups import KEYS, source_of
from tests.factories.bundles import destination
from tests.factories.disks import small_disk
from tests.faults.conftest import Program, wait_for
from tests.faults.server import KILL_SIGNALS, KillableServer

SLUG, OTHER = "struck", "t04"
ROWS = 20_000
# The duration of either, once connected, on an idle machine. A later fault interrupts nothing.
WORK_SECONDS = 0.6
CONNECTED = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND usename = %s"


@pytest.fixture
def filled(fleet: Database) -> Database:
    """The fleet and one more tenant, two of them with rows in a table that refers to nothing. A restore changes the
    tenant's login, and logins belong to the whole server: so no other test has this tenant.
    """
    make_tenant(fleet, MIGRATIONS, SLUG, {"currency": "EUR"})
    add_rows(fleet, SLUG, ROWS)
    add_rows(fleet, OTHER, 10)
    return fleet


def add_rows(fleet: Database, slug: str, rows: int) -> None:
    statement = f"""
        INSERT INTO {slug}_schema.reconciliations (user_id, currency, calculated_minor, posted_minor, source_rows,
            source_hash, compared_at) SELECT gen_random_uuid(), 'EUR', 1, 1, 1, sha256(uuid_send(gen_random_uuid())),
            now() FROM generate_series(1, {rows})"""
    with psycopg.connect(fleet.url()) as superuser:
        superuser.execute(statement.encode())


def rows_of(fleet: Database, slug: str) -> int:
    schema_name = fleet.tenant(slug).schema_name
    with psycopg.connect(fleet.url()) as superuser:
        ((rows,),) = superuser.execute(f"SELECT count(*) FROM {schema_name}.reconciliations".encode()).fetchall()
        return int(rows)


def start_backup(fleet: Database, folder: Path) -> Program:
    return Program(fleet, "scripts.backup_tenant", SLUG, "--to", folder, "--json")


def start_restore(fleet: Database, bundle: Path) -> Program:
    return Program(fleet, "scripts.restore_tenant", bundle, "--yes", "--json")


def take(fleet: Database, folder: Path) -> Path:
    return back_up(source_of(fleet, fleet.roles.backup), SLUG, BackupOptions(folder=folder)).folder


def wait_for_a_moment(fleet: Database, program: Program, role_name: str, moments: Random) -> None:
    wait_for(fleet, CONNECTED, role_name, program=program)
    sleep(moments.random() * WORK_SECONDS)


def bundles_in(folder: Path) -> list[Path]:
    return [each for each in folder.iterdir() if each.suffix != ".partial"]


def rows_in(bundle: Path) -> int:
    """The number of rows, read completely so that the hashes are verified."""
    opened = open_bundle(bundle, KEYS)
    return sum(len(list(opened.lines(rows))) for rows in opened.manifest.tables if rows.name == "reconciliations")


# Backups.


def test_a_killed_backup_leaves_the_older_ones_and_none_that_is_half(
    filled: Database, tmp_path: Path, moments: Random
) -> None:
    take(filled, tmp_path)
    program = start_backup(filled, tmp_path)
    wait_for_a_moment(filled, program, filled.roles.backup, moments)
    program.send(signal.SIGKILL)
    program.end()
    assert {rows_in(bundle) for bundle in bundles_in(tmp_path)} == {ROWS}
    sleep(1)  # Bundles are named by the second.
    take(filled, tmp_path)
    assert {rows_in(bundle) for bundle in tmp_path.iterdir()} == {ROWS}


def test_a_backup_whose_server_goes_down_leaves_nothing_and_says_why(
    server: KillableServer, filled: Database, tmp_path: Path, moments: Random
) -> None:
    program = start_backup(filled, tmp_path)
    wait_for_a_moment(filled, program, filled.roles.backup, moments)
    server.kill(moments.choice(KILL_SIGNALS))
    ended = program.end()
    server.restart()
    assert "Traceback" not in ended.errors, ended
    if ended.code:
        assert ended.code == 1, ended
        assert f"{SLUG} can't be read" in ended.told[0]["error"]
        assert list(tmp_path.iterdir()) == []
    take(filled, tmp_path / "again")


def test_a_full_disk_ends_the_backup_with_its_reason_and_leaves_the_older_one(filled: Database, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "2m") as folder:
        older = take(filled, folder)
        ended = start_backup(filled, folder).end()
        assert ended.code == 1, ended
        assert "No space left on device" in ended.told[0]["error"]
        assert "Traceback" not in ended.errors, ended
        assert list(folder.iterdir()) == [older]
        assert rows_in(older) == ROWS


# Restores.


def assert_whole(fleet: Database) -> None:
    """The tenant is as before the restore, with one row more than the bundle, or is restored."""
    assert rows_of(fleet, SLUG) in {ROWS, ROWS + 1}
    assert rows_of(fleet, OTHER) == 10
    assert fleet.as_tenant(SLUG).execute("SELECT current_schema()").fetchone() == (fleet.tenant(SLUG).schema_name,)


def assert_restored_by_the_next(fleet: Database, bundle: Path) -> None:
    """The killed restore leaves nothing except what every restore keeps."""
    restore(destination(fleet), open_bundle(bundle, KEYS))
    assert rows_of(fleet, SLUG) == ROWS
    with psycopg.connect(fleet.url()) as superuser:
        retired = superuser.execute("SELECT reason, schema_name FROM shared.spare_schemas").fetchall()
        known = {name for _, name in retired} | {tenant.schema_name for tenant in fleet.tenants()}
        schemas = superuser.execute("SELECT nspname FROM pg_namespace WHERE nspowner = 'wallet_owner'::regrole")
        assert {name for (name,) in schemas} == {"shared"} | known
    assert {reason for reason, _ in retired} == {"replaced"}


def test_a_killed_restore_leaves_the_tenant_whole(filled: Database, tmp_path: Path, moments: Random) -> None:
    bundle = take(filled, tmp_path)
    add_rows(filled, SLUG, 1)
    program = start_restore(filled, bundle)
    wait_for_a_moment(filled, program, filled.roles.migrator, moments)
    program.send(signal.SIGKILL)
    program.end()
    assert_whole(filled)
    assert_restored_by_the_next(filled, bundle)


def test_a_restore_whose_server_goes_down_leaves_the_tenant_whole_and_says_why(
    server: KillableServer, filled: Database, tmp_path: Path, moments: Random
) -> None:
    bundle = take(filled, tmp_path)
    add_rows(filled, SLUG, 1)
    program = start_restore(filled, bundle)
    wait_for_a_moment(filled, program, filled.roles.migrator, moments)
    server.kill(moments.choice(KILL_SIGNALS))
    ended = program.end()
    server.restart()
    filled.close()
    assert ended.code in {0, 1}, ended
    assert "Traceback" not in ended.errors, ended
    assert_whole(filled)
    assert_restored_by_the_next(filled, bundle)
