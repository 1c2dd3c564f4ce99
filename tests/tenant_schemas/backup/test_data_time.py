"""A bundle says which time its data has, beside the time at which it was taken."""

from dataclasses import replace
from datetime import timedelta

import psycopg

from tenant_schemas.backup.backup import back_up
from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.data_time import read_data_time
from tenant_schemas.backup.retention import Keep, keep_newest
from tenant_schemas.backup.staging import folder_name
from tenant_schemas.backup.writer import BackupOptions
from tenant_schemas.testing.plugin import Database
from tests.factories.backups import KEYS, source_of


def test_a_backup_of_a_living_tenant_has_its_own_time_and_that_of_the_last_movement(
    database: Database, bundle: Bundle
) -> None:
    manifest = bundle.manifest
    assert manifest.data is not None
    ((last,),) = database.as_tenant("km").execute("SELECT max(created_at) FROM wallet_transactions")
    assert (manifest.data.as_of, manifest.data.last_change_at) == (manifest.taken_at, last)
    assert not manifest.data.is_past
    assert bundle.folder.name == folder_name("km", manifest.taken_at)
    assert f"(last change {last:%Y-%m-%d %H:%M:%S} UTC)" in str(manifest.data)


def test_no_retention_counts_or_removes_a_bundle_of_past_data(database: Database, bundle: Bundle) -> None:
    parent, taken_at = bundle.folder.parent, bundle.manifest.taken_at
    yesterday = taken_at - timedelta(days=1)
    past = bundle.folder.rename(parent / folder_name("km", taken_at, yesterday))
    old = back_up(source_of(database), "km", BackupOptions(folder=parent)).folder
    old = old.rename(parent / folder_name("km", yesterday))
    new = back_up(source_of(database), "km", BackupOptions(folder=parent))
    assert keep_newest(new, Keep(1), KEYS).outdated == [old]
    assert past.exists()


def test_retired_data_is_as_old_as_its_retirement_and_living_data_is_of_now(database: Database) -> None:
    """`test_restore_tenant_point_in_time` reads data of a recovered server."""
    connection = database.as_superuser()
    ((now,),) = connection.execute("SELECT clock_timestamp()")
    policy = replace(source_of(database).backup_policy, last_change=_never)
    live = read_data_time(connection, policy, now)
    assert (live.as_of, live.last_change_at, live.recovery_target, live.is_past) == (now, None, None, False)
    retired = read_data_time(connection, policy, now, now - timedelta(hours=1))
    assert (retired.as_of, retired.is_past) == (now - timedelta(hours=1), True)
    assert "no change in it, replaced" in str(retired)


def _never(_: psycopg.Connection[object]) -> None:
    return None
