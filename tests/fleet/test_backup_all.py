"""All tenants are backed up under one snapshot, and one that fails stops no other."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from flask import Flask

from app.tenancy import MIGRATIONS
from scripts import backup_tenant, export_tenant
from tenant_schemas.backup import backup_all
from tenant_schemas.backup.backup_all import BackupOutcome, back_up_all
from tenant_schemas.backup.bundle import open_bundle
from tenant_schemas.backup.source import Source
from tenant_schemas.backup.writer import BackupOptions
from tenant_schemas.errors import BackupError
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing.plugin import Database, make_tenant
from tests.conftest import SECRET_KEY, SIGNING_KEYS
from tests.factories.people import People
from tests.fleet.test_backup import MIGRATED, paying, rows_in, source_of

Run = Callable[..., Result]


def taken_of(database: Database, options: BackupOptions, role_name: str = "wallet_backup") -> dict[str, BackupOutcome]:
    return {taken.slug: taken for taken in back_up_all(source_of(database, role_name), options)}


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_tenant_of_any_status_is_taken_under_one_snapshot(
    fresh_database: Database, fresh_app: Flask, tmp_path: Path, jobs: int
) -> None:
    people = People(fresh_app)
    wallet = people.wallet(people.make(km="member"), "km", balance_minor=1_000_000)
    make_tenant(fresh_database, MIGRATIONS, "third", {"currency": "EUR"})
    fresh_database.as_superuser().execute("UPDATE shared.tenants SET status = 'archived' WHERE slug = 'third'")
    with paying(fresh_app, [wallet]):
        taken = taken_of(fresh_database, BackupOptions(folder=tmp_path, jobs=jobs))
    assert {slug: each.error for slug, each in taken.items()} == {"eur": None, "km": None, "third": None}
    bundles = {slug: open_bundle(each.bundle.folder) for slug, each in taken.items() if each.bundle}
    assert len({(bundle.manifest.snapshot, bundle.manifest.taken_at) for bundle in bundles.values()}) == 1
    assert {slug: bundle.manifest.tenant.slug for slug, bundle in bundles.items()} == {slug: slug for slug in taken}
    assert bundles["third"].manifest.tenant.status == "archived"
    assert len({bundle.manifest.fingerprint for bundle in bundles.values()}) == 1
    transactions = rows_in(bundles["km"], "wallet_transactions")
    assert [row["balance_minor"] for row in rows_in(bundles["km"], "wallets")] == [
        str(sum(int(row["amount_minor"]) for row in transactions))
    ]
    assert rows_in(bundles["eur"], "wallets") == []


def test_no_lock_of_a_tenant_is_held_when_the_next_one_is_taken(
    fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a thousand tenants would fill the server's table of locks."""
    held = []
    original = backup_all.lock_tables
    query = """
        SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE l.pid = %s AND n.nspname LIKE '%%schema'"""
    watcher = fresh_database.as_superuser()

    def lock_tables(connection: psycopg.Connection[Any], *more: object) -> None:
        pid = connection.info.backend_pid
        held.append(watcher.execute(query, (pid,)).fetchone())
        original(connection, *more)  # type: ignore[arg-type]
        assert watcher.execute(query, (pid,)).fetchone() != (0,)

    monkeypatch.setattr(backup_all, "lock_tables", lock_tables)
    assert all(taken.bundle for taken in taken_of(fresh_database, BackupOptions(folder=tmp_path)).values())
    assert held == [(0,), (0,)]


def test_one_that_fails_stops_no_other_and_leaves_nothing(fresh_database: Database, tmp_path: Path) -> None:
    make_tenant(fresh_database, MIGRATIONS, "aaa", {"currency": "EUR"})
    superuser = fresh_database.as_superuser()
    superuser.execute("ALTER TABLE aaa_schema.wallets ADD COLUMN nickname text")
    superuser.execute("UPDATE eur_schema.alembic_version SET version_num = '0003'")
    taken = taken_of(fresh_database, BackupOptions(folder=tmp_path, jobs=2), "wallet_migrator")
    assert "column wallets.nickname" in (taken["aaa"].error or "")
    assert "0003" in (taken["eur"].error or "")
    assert taken["km"].error is None
    assert [folder.name.partition("-")[0] for folder in tmp_path.iterdir()] == ["km"]


def test_a_schema_that_is_gone_is_its_own_failure(fresh_database: Database, tmp_path: Path) -> None:
    fresh_database.as_superuser().execute("DROP SCHEMA eur_schema CASCADE")
    taken = taken_of(fresh_database, BackupOptions(folder=tmp_path))
    assert taken["eur"].error
    assert taken["km"].bundle


@pytest.mark.parametrize("moment", ["before the snapshot", "after it"])
def test_a_tenant_that_is_migrated_meanwhile_has_a_snapshot_of_its_own(
    fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    done = []

    def migrate_once() -> None:
        if not done:
            done.append(fresh_database.as_superuser().execute(MIGRATED))

    def find_drift(source: Source, tenants: Sequence[Tenant]) -> Mapping[str, Sequence[str]]:
        if moment == "before the snapshot":
            migrate_once()
        return {}

    original = backup_all.lock_tables

    def lock_tables(*arguments: object) -> None:
        migrate_once()
        original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Source, "find_drift", find_drift)
    if moment == "after it":
        monkeypatch.setattr(backup_all, "lock_tables", lock_tables)
    taken = taken_of(fresh_database, BackupOptions(folder=tmp_path))
    km, eur = taken["km"].bundle, taken["eur"].bundle
    assert km is not None
    assert eur is not None
    assert km.manifest.tenant.revision == "9999"
    assert "nickname" in next(rows for rows in km.manifest.tables if rows.name == "wallets").columns
    assert km.manifest.snapshot != eur.manifest.snapshot
    assert km.manifest.taken_at > eur.manifest.taken_at


def test_a_connection_that_is_lost_costs_one_tenant_its_bundle(
    fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    superuser = fresh_database.as_superuser()
    ended = []
    original = backup_all.tables_of

    def cut(connection: object, *more: object) -> object:
        if not ended:
            pid = connection.info.backend_pid  # type: ignore[attr-defined]
            ended.append(superuser.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,)))
        return original(connection, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(backup_all, "tables_of", cut)
    taken = taken_of(fresh_database, BackupOptions(folder=tmp_path))
    assert [slug for slug, each in taken.items() if each.error] == ["eur"]
    assert taken["km"].bundle


def test_whoever_may_not_read_the_registry_gets_one_error(database: Database, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="the registry can't be read"):
        taken_of(database, BackupOptions(folder=tmp_path), "wallet_app")


# The scripts.


@pytest.fixture
def run(fresh_database: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    made = {
        "DATABASE_URL": fresh_database.app_url,
        "BACKUP_DATABASE_URL": fresh_database.url("wallet_backup"),
        "TENANT_SECRET": fresh_database.tenant_secret,
        "SECRET_KEY": SECRET_KEY,
        "SIGNING_KEYS": SIGNING_KEYS,
    }
    monkeypatch.delenv("ADMIN_DATABASE_URL", raising=False)
    for name, value in made.items():
        monkeypatch.setenv(name, value)
    scripts = {"backup_tenant": backup_tenant, "export_tenant": export_tenant}
    return lambda script, *arguments: CliRunner().invoke(scripts[script].main, arguments)


def test_the_script_backs_up_one_or_all_and_says_from_where_to_where(
    run: Run, fresh_database: Database, tmp_path: Path
) -> None:
    one = run("backup_tenant", "km", "--to", str(tmp_path / "one"))
    assert one.exit_code == 0, one.output
    assert str(next((tmp_path / "one").iterdir())) in one.output
    url = sa.make_url(fresh_database.admin_url)
    place = f"{url.host}:{url.port}/{url.database}"
    assert place in one.output
    assert place in run("backup_tenant", "nope", "--to", str(tmp_path / "one")).output
    both = run("backup_tenant", "--all", "--to", str(tmp_path / "all"), "--jobs", "2", "--json")
    assert both.exit_code == 0, both.output
    told = json.loads(both.output)
    assert {each["slug"] for each in told} == {"eur", "km"}
    for each in told:
        open_bundle(Path(each["bundle"]))
        assert each["source"] == place


def test_the_script_keeps_as_many_as_it_is_told_and_only_after_a_new_one(
    run: Run, fresh_database: Database, tmp_path: Path
) -> None:
    for minute in range(3):
        assert run("backup_tenant", "km", "--to", str(tmp_path)).exit_code == 0
        newest = max(tmp_path.iterdir(), key=lambda folder: folder.stat().st_mtime)
        _move_back(newest, minute)
    fresh_database.as_superuser().execute("UPDATE km_schema.alembic_version SET version_num = '0001'")
    assert run("backup_tenant", "km", "--to", str(tmp_path), "--keep", "1").exit_code == 1
    assert len(list(tmp_path.iterdir())) == 3
    fresh_database.as_superuser().execute(
        "UPDATE km_schema.alembic_version SET version_num = (SELECT revision FROM shared.tenants WHERE slug = 'km')"
    )
    kept = run("backup_tenant", "km", "--to", str(tmp_path), "--keep", "2", "--json")
    assert kept.exit_code == 0, kept.output
    assert len(json.loads(kept.output)[0]["removed"]) == 2
    assert len(list(tmp_path.iterdir())) == 2


def _move_back(folder: Path, minute: int) -> None:
    told = json.loads((folder / "manifest.json").read_text())
    told["taken_at"] = f"2000-01-01T00:0{minute}:00Z"
    (folder / "manifest.json").write_text(json.dumps(told))
    folder.rename(folder.with_name(f"km-20000101T000{minute}00Z"))


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("backup_tenant", ("--to", "x")),
        ("backup_tenant", ("km", "--all", "--to", "x")),
        ("backup_tenant", ("km",)),
        ("backup_tenant", ("nope", "--to", "x")),
        ("backup_tenant", ("km", "--to", "x", "--keep", "0")),
        ("backup_tenant", ("km", "--to", "x", "--seal-to", "age1x")),
        ("export_tenant", ("nope", "--to", "x")),
        ("export_tenant", ("km",)),
    ],
)
def test_what_can_not_be_asked_for_is_refused_with_a_reason(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(script, *arguments)
    assert result.exit_code == 2
    assert result.output
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []
