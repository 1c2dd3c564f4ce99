"""`scripts.backup_tenant` backs up one tenant or all; killed or out of space it leaves no partial bundle."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.config import ROOT
from tenant_schemas.backup.bundle import open_bundle
from tenant_schemas.backup.shared_bundle import open_shared_bundle
from tenant_schemas.errors import BackupError
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.schema_diff.reference import store_head_fingerprint
from tenant_schemas.secret_checks import replace_secret
from tenant_schemas.testing.plugin import Database
from tests.factories.backups import FOREIGN_KEYS, KEYS, fill, write_manifest
from tests.factories.script_runner import Run, backup_script_runner, environment_of_backups

pytestmark = pytest.mark.both_servers


@pytest.fixture
def run(fresh_database: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    return backup_script_runner(fresh_database, monkeypatch)


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
    assert [each["slug"] for each in told][2:] == ["shared"]
    assert {each["slug"] for each in told} == {"eur", "km", "shared"}
    for each in told:
        (open_shared_bundle if each["slug"] == "shared" else open_bundle)(Path(each["bundle"]), KEYS)
        assert each["source"] == place


def test_the_schema_shared_alone_is_backed_up_and_older_bundles_of_it_go(run: Run, tmp_path: Path) -> None:
    assert run("backup_tenant", "--shared", "km", "--to", str(tmp_path)).exit_code == 2
    assert run("backup_tenant", "--shared", "--to", str(tmp_path)).exit_code == 0
    (old,) = tmp_path.iterdir()
    old = old.rename(tmp_path / "shared-20200101T000000Z")
    taken = run("backup_tenant", "--shared", "--to", str(tmp_path), "--keep", "1", "--json")
    assert taken.exit_code == 0, taken.output
    (told,) = json.loads(taken.output)
    assert told["removed"] == [str(old)]
    assert [str(folder) for folder in tmp_path.iterdir()] == [told["bundle"]]


def test_a_machine_that_only_takes_backups_needs_its_login_and_a_key(
    fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = backup_script_runner(fresh_database, monkeypatch)
    for name in ("DATABASE_URL", "TENANT_SECRET", "SECRET_KEY", "SIGNING_KEYS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    taken = run("backup_tenant", "--all", "--to", str(tmp_path / "bundles"))
    assert taken.exit_code == 0, taken.output
    for folder in (tmp_path / "bundles").iterdir():
        (open_shared_bundle if folder.name.startswith("shared-") else open_bundle)(folder, KEYS)
    monkeypatch.delenv("BACKUP_KEY_FILE")
    without_key = run("backup_tenant", "--all", "--to", str(tmp_path / "unsigned"))
    assert (without_key.exit_code, "TENANT_SECRET" in without_key.output) == (2, True)
    monkeypatch.setenv("TENANT_SECRET", "not that of the installation, and long enough")
    replace_secret(fresh_database.as_superuser(), "TENANT_SECRET", fresh_database.tenant_secret)
    assert run("backup_tenant", "--all", "--to", str(tmp_path / "wrong")).exit_code == 2
    assert {path.name for path in tmp_path.iterdir()} == {"bundles"}


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
    foreign = Path(shutil.copytree(next(tmp_path.iterdir()), tmp_path / "km-20990101T000000Z"))
    write_manifest(foreign, (foreign / "manifest.json").read_text(), FOREIGN_KEYS)
    kept = run("backup_tenant", "km", "--to", str(tmp_path), "--keep", "2", "--json")
    assert kept.exit_code == 0, kept.output
    assert len(json.loads(kept.output)[0]["removed"]) == 2
    assert json.loads(kept.output)[0]["not_ours"] == [str(foreign)]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_dry_run_shows_what_would_be_deleted_and_backs_up_nothing(run: Run, tmp_path: Path) -> None:
    for minute in range(2):
        assert run("backup_tenant", "km", "--to", str(tmp_path)).exit_code == 0
        _move_back(max(tmp_path.iterdir(), key=lambda folder: folder.stat().st_mtime), minute)
    oldest, newest = sorted(tmp_path.iterdir())
    for keep, outdated in (("2", [oldest]), ("3", []), ("1", [newest, oldest]), ("14d", [newest, oldest])):
        told = json.loads(
            run("backup_tenant", "--all", "--to", str(tmp_path), "--keep", keep, "--dry-run", "--json").output
        )
        removed = {each["slug"]: each["would_remove"] for each in told}
        assert removed == {"eur": [], "km": list(map(str, outdated)), "shared": []}
    assert (
        f"would delete {oldest}" in run("backup_tenant", "km", "--to", str(tmp_path), "--keep", "2", "--dry-run").output
    )
    assert sorted(tmp_path.iterdir()) == [oldest, newest]


def test_what_has_drifted_is_told_each_time_unless_it_is_accepted(
    run: Run, fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tenancy_migrations: Migrations
) -> None:
    """With the effect. A new column alone leaves the nightly run without a bundle of that tenant."""
    store_head_fingerprint(fresh_database.admin_engine(), tenancy_migrations)
    superuser = fresh_database.as_superuser()
    superuser.execute("CREATE INDEX by_status ON km_schema.wallets (status)")
    superuser.execute("ALTER TABLE eur_schema.wallets ADD COLUMN nickname text")
    first = run("backup_tenant", "--all", "--to", str(tmp_path / "first"))
    assert first.exit_code == 1
    assert "km differs from the migrations in index by_status (harmless)" in first.output
    assert "column wallets.nickname (breaks a restore)" in first.output
    assert sorted(folder.name[:3] for folder in (tmp_path / "first").iterdir()) == ["km-", "sha"]
    accepted = tmp_path / "accepted"
    accepted.write_text("index by_*\n")
    monkeypatch.setenv("ACCEPTED_DRIFT_FILE", str(accepted))
    second = run("backup_tenant", "--all", "--to", str(tmp_path / "second"), "--with-dump")
    assert second.exit_code == 0, second.output
    assert "index by_status" not in second.output
    assert "eur differs from the migrations in column wallets.nickname (breaks a restore)" in second.output


def _move_back(folder: Path, minute: int) -> None:
    told = json.loads((folder / "manifest.json").read_text())
    told["taken_at"] = f"2000-01-01T00:0{minute}:00Z"
    write_manifest(folder, json.dumps(told))
    folder.rename(folder.with_name(f"km-20000101T000{minute}00Z"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--to", "x"),
        ("km", "--all", "--to", "x"),
        ("km",),
        ("nope", "--to", "x"),
        *(("km", "--to", "x", "--keep", keep) for keep in ("0", "0d", "2w", "-1", "d")),
        ("km", "--to", "x", "--dry-run"),
        ("nope", "--to", "x", "--keep", "1", "--dry-run"),
        ("km", "--to", "x", "--seal-to", "age1x"),
    ],
)
def test_what_can_not_be_asked_for_is_refused_with_a_reason(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("backup_tenant", *arguments)
    assert result.exit_code == 2
    assert result.output
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


Script = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def script(fresh_database: Database) -> Script:
    """Starts the real script on the test's database, as wallet_backup.

    Without coverage: a limit on file sizes would stop its own file too, and its traceback would look like the
    script's.
    """
    variables = os.environ | environment_of_backups(fresh_database)
    variables.pop("COVERAGE_PROCESS_START", None)
    command = [sys.executable, "-m", "scripts.backup_tenant"]

    def start(*arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            env=variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


def test_a_killed_backup_leaves_no_bundle_and_the_next_one_clears_up(
    script: Script, fresh_database: Database, tmp_path: Path
) -> None:
    fill(fresh_database, 60_000)
    left = 0
    for moment in range(6):
        with script("km", "--to", str(tmp_path)) as running:
            while running.poll() is None and not list(tmp_path.glob("*.partial")):
                time.sleep(0.001)
            time.sleep(moment * 0.03)
            running.send_signal(signal.SIGKILL)
        for folder in tmp_path.iterdir():
            if folder.suffix == ".partial":
                left += 1
                with pytest.raises(BackupError, match="no bundle"):
                    open_bundle(folder, KEYS)
            else:
                open_bundle(folder, KEYS)
                shutil.rmtree(folder)
    assert left
    with script("km", "--to", str(tmp_path)) as running:
        assert running.wait() == 0, running.stderr
    assert [folder.suffix for folder in tmp_path.iterdir()] == [""]


def test_a_file_that_may_not_grow_ends_the_backup_with_the_reason(
    script: Script, fresh_database: Database, tmp_path: Path
) -> None:
    fill(fresh_database, 20_000)
    with script("km", "--to", str(tmp_path)) as running:
        resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
        _, said = running.communicate()
    assert running.returncode == 1
    assert "km can't be written: File too large" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
