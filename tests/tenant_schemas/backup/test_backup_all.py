"""All tenants are backed up under one snapshot, and a tenant that fails stops no other."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask

from tenant_schemas.backup import backup_all
from tenant_schemas.backup.backup_all import BackupOutcome, back_up_all
from tenant_schemas.backup.bundle import open_bundle
from tenant_schemas.backup.source import Source
from tenant_schemas.backup.writer import BackupOptions
from tenant_schemas.errors import BackupError
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.schema_diff.compare import Drift
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing.plugin import Database, make_tenant
from tests.factories.backups import KEYS, MIGRATED, paying, rows_in, source_of
from tests.factories.locks import held_tenant
from tests.factories.people import People

pytestmark = pytest.mark.both_servers


def taken_of(database: Database, options: BackupOptions, role_name: str = "wallet_backup") -> dict[str, BackupOutcome]:
    return {taken.slug: taken for taken in back_up_all(source_of(database, role_name), options)}


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_tenant_of_any_status_is_taken_under_one_snapshot(
    fresh_database: Database, fresh_app: Flask, tmp_path: Path, jobs: int, tenancy_migrations: Migrations
) -> None:
    people = People(fresh_app)
    wallet = people.wallet(people.make(km="member"), "km", balance_minor=1_000_000)
    make_tenant(fresh_database, tenancy_migrations, "third", {"currency": "EUR"})
    fresh_database.as_superuser().execute("UPDATE shared.tenants SET status = 'archived' WHERE slug = 'third'")
    with paying(fresh_database, [wallet]):
        taken = taken_of(fresh_database, BackupOptions(folder=tmp_path, jobs=jobs))
    assert {slug: each.error for slug, each in taken.items()} == {"eur": None, "km": None, "third": None}
    bundles = {slug: open_bundle(each.bundle.folder, KEYS) for slug, each in taken.items() if each.bundle}
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
    """Otherwise a thousand tenants would fill the server's lock table."""
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


def test_one_that_fails_stops_no_other_and_leaves_nothing(
    fresh_database: Database, tmp_path: Path, tenancy_migrations: Migrations
) -> None:
    make_tenant(fresh_database, tenancy_migrations, "aaa", {"currency": "EUR"})
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
    assert "Schema eur_schema of tenant eur is gone" in (taken["eur"].error or "")
    assert taken["km"].bundle


def test_a_locked_tenant_fails_alone_and_the_session_that_locks_it_is_named(
    fresh_database: Database, tmp_path: Path
) -> None:
    """The registry, the fingerprints and drift of the others are read all the same."""
    source = replace(source_of(fresh_database), lock_timeout_ms=50)
    with held_tenant(fresh_database, "eur") as pid:
        taken = {taken.slug: taken for taken in back_up_all(source, BackupOptions(folder=tmp_path))}
    assert taken["km"].bundle
    for part in ("eur can't be read", "lock timeout", f"process {pid}", "a forgotten shell"):
        assert part in (taken["eur"].error or "")
    assert [folder.name.partition("-")[0] for folder in tmp_path.iterdir()] == ["km"]


def test_a_tenant_that_is_locked_after_the_look_for_drift_is_named_in_the_same_way(
    fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = replace(source_of(fresh_database), lock_timeout_ms=50)
    with ExitStack() as lock:

        def lock_eur(_: Source, __: Sequence[Tenant]) -> Drift:
            lock.enter_context(held_tenant(fresh_database, "eur"))
            return Drift({}, {})

        monkeypatch.setattr(Source, "find_drift", lock_eur)
        taken = {taken.slug: taken for taken in back_up_all(source, BackupOptions(folder=tmp_path))}
    assert taken["km"].bundle
    assert "lock timeout. Blocked by: postgres (process" in (taken["eur"].error or "")


def test_a_tenant_that_is_locked_for_a_while_is_backed_up_after_the_others(
    fresh_database: Database, tmp_path: Path
) -> None:
    """A migration of one tenant may run longer than the first short wait."""
    fresh_database.as_superuser().execute("ALTER TABLE eur_schema.wallets ADD COLUMN nickname text")
    source = replace(source_of(fresh_database, "wallet_migrator"), lock_timeout_ms=60_000)
    with ExitStack() as lock:
        lock.enter_context(held_tenant(fresh_database, "eur"))
        taken = back_up_all(source, BackupOptions(folder=tmp_path, with_dump=True))
        assert next(taken).slug == "km"
        lock.close()
        (last,) = taken
    assert (last.slug, last.error) == ("eur", None)


def test_a_schema_without_rights_for_this_login_is_its_own_failure(fresh_database: Database, tmp_path: Path) -> None:
    """As a restore with --no-owner --no-acl leaves it."""
    fresh_database.as_superuser().execute("REVOKE ALL ON SCHEMA eur_schema FROM wallet_owner, tenant_eur")
    fresh_database.as_superuser().execute("ALTER SCHEMA eur_schema OWNER TO postgres")
    taken = taken_of(fresh_database, BackupOptions(folder=tmp_path), "wallet_migrator")
    assert "permission denied for schema eur_schema" in (taken["eur"].error or "")
    assert taken["km"].bundle


@pytest.mark.parametrize("moment", ["before the snapshot", "after it"])
def test_a_tenant_that_is_migrated_meanwhile_has_a_snapshot_of_its_own(
    fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    done = []

    def migrate_once() -> None:
        if not done:
            done.append(fresh_database.as_superuser().execute(MIGRATED))

    def find_drift(source: Source, tenants: Sequence[Tenant]) -> Drift:
        if moment == "before the snapshot":
            migrate_once()
        return Drift({}, {})

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
