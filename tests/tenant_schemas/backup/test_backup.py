"""A backup of one tenant is complete and verified, or it does not exist."""

import json
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from flask import Flask

from tenant_schemas.backup import writer
from tenant_schemas.backup.backup import back_up
from tenant_schemas.backup.backup_all import back_up_all
from tenant_schemas.backup.bundle import Bundle, open_bundle
from tenant_schemas.backup.policy import BackupPolicy
from tenant_schemas.backup.source import Source
from tenant_schemas.backup.table_io import tally_of
from tenant_schemas.backup.writer import BackupOptions
from tenant_schemas.errors import BackupError, BundleExists, TenantChanged, TenantDrifted, TenantNotFound
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.schema_diff.compare import Drift
from tenant_schemas.schema_diff.effects import DriftedObject, Effect
from tenant_schemas.schema_diff.reference import store_head_fingerprint
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing.plugin import Database
from tests.factories.backups import KEYS, MIGRATED, fill, paying, rows_in, source_of
from tests.factories.people import People

pytestmark = pytest.mark.both_servers

KEPT_OF_PEOPLE = ("id", "email", "name")


def test_a_bundle_holds_every_row_of_the_tenant_and_nobody_elses(
    fresh_database: Database, fresh_app: Flask, tmp_path: Path
) -> None:
    people = People(fresh_app)
    ours, theirs = people.make(km="member", eur="member"), people.make(eur="member")
    people.wallet(ours, "km", balance_minor=1234)
    people.wallet(theirs, "eur", balance_minor=999)
    taken = back_up(source_of(fresh_database), "km", BackupOptions(folder=tmp_path))
    bundle = open_bundle(taken.folder, KEYS)
    assert bundle.manifest == taken.manifest
    for rows in (*bundle.manifest.tables, *bundle.manifest.shared):
        tally = tally_of(bundle.lines(rows))
        assert (tally.rows, tally.hash) == (rows.rows, rows.hash)
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'km_schema' AND tablename <> 'alembic_version'"
    assert {rows.name for rows in bundle.manifest.tables} == {
        name for (name,) in fresh_database.as_superuser().execute(tables)
    }
    assert [row["balance_minor"] for row in rows_in(bundle, "wallets")] == ["1234"]
    assert [row["user_id"] for row in rows_in(bundle, "memberships")] == [str(ours.user_id)]
    assert rows_in(bundle, "users") == [{"id": str(ours.user_id), "email": ours.email, "name": "Test Person"}]


def test_a_person_with_a_wallet_is_in_the_bundle_though_they_belong_no_more(
    fresh_database: Database, fresh_app: Flask, tmp_path: Path
) -> None:
    people = People(fresh_app)
    gone = people.make(km="member")
    people.wallet(gone, "km")
    fresh_database.as_superuser().execute("DELETE FROM shared.memberships")
    bundle = back_up(source_of(fresh_database), "km", BackupOptions(folder=tmp_path))
    assert rows_in(bundle, "memberships") == []
    assert [row["id"] for row in rows_in(bundle, "users")] == [str(gone.user_id)]


def test_the_manifest_says_what_the_tenant_is_and_tells_of_no_person(
    fresh_database: Database, fresh_app: Flask, tmp_path: Path
) -> None:
    people = People(fresh_app)
    person = people.make(km="member", name="Amra Hadžić")
    people.wallet(person, "km", balance_minor=5)
    bundle = back_up(source_of(fresh_database), "km", BackupOptions(folder=tmp_path))
    tenant, told = fresh_database.tenant("km"), bundle.manifest.tenant
    assert (told.id, told.slug, told.schema_name, told.status, told.settings, told.revision) == (
        *(tenant.id, tenant.slug, tenant.schema_name, tenant.status, tenant.settings, tenant.revision),
    )
    assert re.fullmatch(r"km-\d{8}T\d{6}Z", bundle.folder.name)
    text = (bundle.folder / "manifest.json").read_text()
    assert not [word for word in (person.email, "Amra", str(person.user_id)) if word in text]
    assert json.loads(text)["format"] == 3


def test_only_the_owner_of_a_bundle_may_read_it_whatever_the_umask(database: Database, tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        folder = back_up(source_of(database), "km", BackupOptions(folder=tmp_path / "new", with_dump=True)).folder
    finally:
        os.umask(umask)
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder, *folder.rglob("*"))}
    assert {mode for path, mode in found.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in found.items() if path.is_file()} == {0o600}


def test_members_go_on_paying_and_the_bundle_holds_in_itself(
    fresh_database: Database, fresh_app: Flask, tmp_path: Path
) -> None:
    people = People(fresh_app)
    wallets = [people.wallet(people.make(km="member"), "km", balance_minor=1_000_000) for _ in range(3)]
    fill(fresh_database, 20_000)
    deadline = time.monotonic() + 20
    with paying(fresh_database, wallets) as paid:
        while paid[0] < 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        before = paid[0]
        bundle = back_up(source_of(fresh_database), "km", BackupOptions(folder=tmp_path))
        assert paid[0] > before
    transactions = rows_in(bundle, "wallet_transactions")
    for wallet in rows_in(bundle, "wallets"):
        own = [row for row in transactions if row["wallet_id"] == wallet["id"]]
        assert sum(int(row["amount_minor"]) for row in own) == int(wallet["balance_minor"])
        assert sorted(int(row["seq"]) for row in own) == list(range(1, int(wallet["last_seq"]) + 1))
    total = sum(int(wallet["balance_minor"]) for wallet in rows_in(bundle, "wallets"))
    assert [row["balanceMinor"] for row in bundle.manifest.proof["wallets"]] == [str(total)]


def test_a_large_tenant_is_read_over_several_connections_in_one_snapshot(
    fresh_database: Database, fresh_app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_LARGE_TABLE_PAGES", 0)
    people = People(fresh_app)
    wallets = [people.wallet(people.make(km="member"), "km", balance_minor=1_000_000)]
    with paying(fresh_database, wallets):
        bundle = back_up(source_of(fresh_database), "km", BackupOptions(folder=tmp_path, jobs=3))
    assert len(bundle.manifest.tables) > 10
    open_bundle(bundle.folder, KEYS)
    (wallet,) = rows_in(bundle, "wallets")
    assert len(rows_in(bundle, "wallet_transactions")) == int(wallet["last_seq"])


# Drift.


ADD_COLUMN = "ALTER TABLE km_schema.wallets ADD COLUMN nickname text"


def test_a_tenant_whose_rows_a_restore_may_refuse_is_refused_and_what_differs_is_named(
    fresh_database: Database, tmp_path: Path
) -> None:
    """At each backup, also if an earlier one was possible."""
    source, options = source_of(fresh_database, "wallet_migrator"), BackupOptions(folder=tmp_path)
    back_up(source, "km", options)
    fresh_database.as_superuser().execute(ADD_COLUMN)
    for _ in range(2):
        with pytest.raises(TenantDrifted, match=r"column wallets.nickname \(breaks a restore\)"):
            back_up(source, "km", options)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("is_noted", [True, False])
@pytest.mark.parametrize("schemas", [("km_schema",), ("km_schema", "eur_schema")])
def test_drift_that_keeps_no_row_out_stops_no_backup_and_is_in_the_manifest(
    fresh_database: Database, tmp_path: Path, tenancy_migrations: Migrations, schemas: tuple[str, ...], is_noted: bool
) -> None:
    """Also with a login that may make no reference, and if no tenant is as the migrations make it."""
    if is_noted:
        store_head_fingerprint(fresh_database.admin_engine(), tenancy_migrations)
    superuser = fresh_database.as_superuser()
    for schema in schemas:
        superuser.execute(f"CREATE INDEX by_status ON {schema}.wallets (status)".encode())
        superuser.execute(f"CREATE FUNCTION {schema}.f() RETURNS int LANGUAGE sql AS 'SELECT 1'".encode())
        superuser.execute(f"ALTER FUNCTION {schema}.f() OWNER TO wallet_owner".encode())
    bundle = back_up(source_of(fresh_database), "km", BackupOptions(folder=tmp_path))
    found = open_bundle(bundle.folder, KEYS).manifest
    assert found.is_restorable
    if is_noted:
        assert {(each.name, each.effect) for each in found.drift or ()} >= {
            ("index by_status", Effect.HARMLESS),
            ("function f()", Effect.LOST),
        }


def test_a_schema_that_is_as_was_noted_of_the_history_is_not_looked_at_again(
    fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The migrator's first comparison is noted; later backups of any tenant use the note, even with a login that may
    only read.
    """
    looked_at: list[str] = []
    look = Source.find_drift

    def count(source: Source, tenants: Sequence[Tenant]) -> Drift:
        looked_at.extend(tenant.slug for tenant in tenants)
        return look(source, tenants)

    monkeypatch.setattr(Source, "find_drift", count)
    back_up(source_of(fresh_database, "wallet_migrator"), "km", BackupOptions(folder=tmp_path / "b"))
    back_up(source_of(fresh_database), "eur", BackupOptions(folder=tmp_path / "b"))
    back_up(source_of(fresh_database), "km", BackupOptions(folder=tmp_path / "c"))
    assert looked_at == ["km"]


def test_a_tenant_whose_rows_a_restore_may_refuse_goes_with_a_dump_of_its_form(
    fresh_database: Database, tmp_path: Path, tenancy_migrations: Migrations
) -> None:
    """The manifest says that the rows alone can't be relied on."""
    store_head_fingerprint(fresh_database.admin_engine(), tenancy_migrations)
    fresh_database.as_superuser().execute(ADD_COLUMN)
    made = back_up(source_of(fresh_database), "km", BackupOptions(folder=tmp_path, with_dump=True))
    manifest = open_bundle(made.folder, KEYS).manifest
    assert manifest.dump is not None
    assert DriftedObject("column wallets.nickname", Effect.BREAKS) in (manifest.drift or ())
    assert not manifest.is_restorable


def test_the_rows_of_a_table_that_the_migrations_do_not_make_are_in_the_bundle(
    fresh_database: Database, tmp_path: Path
) -> None:
    superuser = fresh_database.as_superuser()
    superuser.execute("CREATE TABLE km_schema.extra (id int PRIMARY KEY)")
    superuser.execute("INSERT INTO km_schema.extra VALUES (7)")
    bundle = back_up(source_of(fresh_database), "km", BackupOptions(folder=tmp_path))
    assert rows_in(open_bundle(bundle.folder, KEYS), "extra") == [{"id": "7"}]
    assert bundle.manifest.is_restorable


def test_a_schema_and_a_registry_that_disagree_on_the_revision_are_refused(
    fresh_database: Database, tmp_path: Path
) -> None:
    fresh_database.as_superuser().execute("UPDATE km_schema.alembic_version SET version_num = '0001'")
    with pytest.raises(TenantDrifted, match="0001"):
        back_up(source_of(fresh_database), "km", BackupOptions(folder=tmp_path, with_dump=True))
    assert list(tmp_path.iterdir()) == []


# Concurrent migrations.


def test_a_migration_between_the_look_and_the_snapshot_is_noticed(
    fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    def migrate_once(source: Source, tenants: Sequence[Tenant]) -> Drift:
        if not looks:
            fresh_database.as_superuser().execute(MIGRATED)
        looks.append(tenants[0].revision)
        return Drift({}, {})

    monkeypatch.setattr(Source, "find_drift", migrate_once)
    bundle = back_up(source_of(fresh_database), "km", BackupOptions(folder=tmp_path))
    assert looks[1:] == ["9999"]
    assert bundle.manifest.tenant.revision == "9999"
    (wallets,) = [rows for rows in bundle.manifest.tables if rows.name == "wallets"]
    assert "nickname" in wallets.columns


def test_a_tenant_that_is_migrated_again_and_again_is_given_up(
    fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def migrate(source: Source, tenants: Sequence[Tenant]) -> Drift:
        fresh_database.as_superuser().execute("UPDATE shared.tenants SET revision = revision WHERE slug = 'km'")
        return Drift({}, {})

    monkeypatch.setattr(Source, "find_drift", migrate)
    with pytest.raises(TenantChanged):
        back_up(source_of(fresh_database), "km", BackupOptions(folder=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_migration_under_way_is_waited_for_and_is_in_the_bundle(fresh_database: Database, tmp_path: Path) -> None:
    migrator = fresh_database.as_superuser()
    migrator.execute("BEGIN")
    migrator.execute(MIGRATED)
    taken: list[Bundle] = []
    source = source_of(fresh_database)
    thread = Thread(target=lambda: taken.append(back_up(source, "km", BackupOptions(folder=tmp_path, with_dump=True))))
    thread.start()
    waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'backup of km' AND wait_event_type = 'Lock'"
    watcher = fresh_database.as_superuser()
    deadline = time.monotonic() + 20
    while watcher.execute(waits).fetchone() == (0,) and time.monotonic() < deadline:
        time.sleep(0.02)
    migrator.execute("COMMIT")
    thread.join()
    assert [bundle.manifest.tenant.revision for bundle in taken] == ["9999"]


# Failures.


def test_an_existing_bundle_is_never_overwritten(database: Database, tmp_path: Path) -> None:
    first = back_up(source_of(database), "km", BackupOptions(folder=tmp_path))
    for _ in range(3):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(writer, "folder_name", lambda *_: first.folder.name)
            with pytest.raises(BundleExists):
                back_up(source_of(database), "km", BackupOptions(folder=tmp_path))
    assert list(tmp_path.iterdir()) == [first.folder]
    open_bundle(first.folder, KEYS)


@pytest.mark.parametrize("role_name", ["wallet_app", "tenant_km"])
def test_a_role_that_sees_only_some_rows_is_refused(
    database: Database, tmp_path: Path, role_name: str, tenancy_migrations: Migrations, backup_policy: BackupPolicy
) -> None:
    password = None if role_name == "wallet_app" else database.password_of(database.tenant("km"))
    url = database.url(role_name, password)
    source = Source(url=url, migrations=tenancy_migrations, backup_policy=backup_policy, keys=KEYS)
    with pytest.raises(BackupError, match=r"row-level security|permission denied"):
        back_up(source, "km", BackupOptions(folder=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_rows_hidden_by_row_level_security_are_an_error_and_not_missing(
    fresh_database: Database, tmp_path: Path
) -> None:
    """pg_read_all_data allows reading every table but bypasses no policy."""
    superuser = fresh_database.as_superuser()
    superuser.execute("ALTER ROLE wallet_backup NOBYPASSRLS")
    try:
        with pytest.raises(BackupError, match="row-level security"):
            back_up(source_of(fresh_database), "km", BackupOptions(folder=tmp_path))
    finally:
        superuser.execute("ALTER ROLE wallet_backup BYPASSRLS")
    assert list(tmp_path.iterdir()) == []


def test_a_tenant_that_does_not_exist_is_not_found(database: Database, tmp_path: Path) -> None:
    with pytest.raises(TenantNotFound):
        back_up(source_of(database), "nope", BackupOptions(folder=tmp_path))


def test_a_lost_connection_leaves_nothing(
    fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(fresh_database, 50_000)
    superuser = fresh_database.as_superuser()
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'backup of km'"
    original = writer.write_rows

    def cut(*arguments: object, **named: object) -> object:
        superuser.execute(end)
        return original(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(writer, "write_rows", cut)
    with pytest.raises(BackupError, match="km can't be read"):
        back_up(source_of(fresh_database), "km", BackupOptions(folder=tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("sealed_for", [(), ("age1jfcjyn7kajx40z45sj9ad9ttwunurwuc23uakzmslk0zafj6fcps8v4tp5",)])
def test_a_full_disk_leaves_nothing_and_is_named(
    fresh_database: Database, small_disk: Path, sealed_for: tuple[str, ...]
) -> None:
    fill(fresh_database, 20_000)
    for options in (
        BackupOptions(folder=small_disk, sealed_for=sealed_for),
        BackupOptions(folder=small_disk, with_dump=True),
    ):
        with pytest.raises(BackupError, match="km can't be written: No space left on device"):
            back_up(source_of(fresh_database), "km", options)
        assert list(small_disk.iterdir()) == []


def test_what_a_running_backup_writes_is_not_cleared_up_by_another(
    fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = writer.write_rows
    inner: list[Bundle] = []

    def once_more(*arguments: object, **named: object) -> object:
        if not inner:
            monkeypatch.setattr(writer, "write_rows", original)
            time.sleep(1.1)  # Bundles are named by the second.
            inner.append(back_up(source_of(fresh_database), "km", BackupOptions(folder=tmp_path)))
        return original(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(writer, "write_rows", once_more)
    outer = back_up(source_of(fresh_database), "km", BackupOptions(folder=tmp_path))
    for bundle in (outer, *inner):
        open_bundle(bundle.folder, KEYS)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("is_all", [False, True])
def test_members_and_people_are_locked_only_until_they_are_read(
    fresh_database: Database, fresh_app: Flask, tmp_path: Path, is_all: bool, backup_policy: BackupPolicy
) -> None:
    """Otherwise no schema of any tenant could be dropped during a backup: a drop locks the tables that the schema
    refers to.
    """
    person = People(fresh_app).make(km="member")
    watcher = fresh_database.as_superuser()
    proved = []

    def prove(_: object) -> dict[str, object]:
        with watcher.transaction():
            watcher.execute("LOCK TABLE shared.users, shared.memberships IN ACCESS EXCLUSIVE MODE NOWAIT")
        proved.append(True)
        return {}

    source = replace(source_of(fresh_database), backup_policy=replace(backup_policy, prove=prove))
    if is_all:
        taken = {each.slug: each.bundle for each in back_up_all(source, BackupOptions(folder=tmp_path))}
    else:
        taken = {"km": back_up(source, "km", BackupOptions(folder=tmp_path))}
    assert len(proved) == len(taken)
    bundle = taken["km"]
    assert bundle is not None
    assert [row["id"] for row in rows_in(bundle, "users")] == [str(person.user_id)]


def test_whom_a_table_names_without_a_foreign_key_is_in_the_bundle(
    fresh_database: Database, fresh_app: Flask, tmp_path: Path
) -> None:
    """The audit log names people who are no longer members. A text that is not an id refers to no person."""
    people = People(fresh_app)
    actor, subject = people.make(km="admin"), people.make(km="member")
    note = "SELECT audit_note_v1(jsonb_build_object('action', 'x', 'actor_id', %s::uuid, 'subject', %s::text))"
    for text in (str(subject.user_id), "no id"):
        fresh_database.as_tenant("km").execute(note, (actor.user_id, text))
    fresh_database.as_superuser().execute("DELETE FROM shared.memberships")
    bundle = back_up(source_of(fresh_database), "km", BackupOptions(folder=tmp_path))
    assert {row["id"] for row in rows_in(bundle, "users")} == {str(actor.user_id), str(subject.user_id)}
