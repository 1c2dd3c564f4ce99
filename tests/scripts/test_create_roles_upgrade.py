"""A major upgrade of PostgreSQL from 15 to 18 by pg_upgrade, as docs/operations.md describes it, and what the migrator
can do afterwards.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.tenancy import MIGRATIONS
from tenant_schemas import embedded
from tenant_schemas.doctor import Finding
from tenant_schemas.embedded import binary
from tenant_schemas.testing.databases import Database, make_template
from tests.factories.doctor import engine, findings
from tests.factories.script_runner import Run, script_runner
from tests.servers import debian
from tests.servers.fixtures import GIVEN

pytestmark = pytest.mark.skipif(bool(GIVEN), reason="TEST_DATABASE_URL gives one server, and an upgrade needs two")

# PostgreSQL 15.20 notes this at columns, and the pg_dump of 18.6 writes it out, where no server takes it.
FORGET_ATTVER = "UPDATE pg_attribute SET attoptions = NULL WHERE attoptions::text ~ '^{pg_attver=[0-9]*}$'"
WITHOUT_GRANT = "REVOKE tenant_km FROM wallet_migrator"


@pytest.fixture(scope="module")
def upgraded() -> Iterator[Database]:
    """The tenants eur and km on PostgreSQL 18, made on 15; km by a release that granted the migrator nothing."""
    if not debian.is_installed():
        pytest.skip(f"PostgreSQL 15 is not in {debian.BINARIES}: apt-get install postgresql-15")
    with tempfile.TemporaryDirectory(prefix="upgrade-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        embedded.start(folder / "account").release()  # Creates the server's account.
        (folder / "15").mkdir()
        with debian.running(folder / "15") as url:
            settings = {"eur": {"currency": "EUR"}, "km": {"currency": "BAM"}}
            database = make_template(url, MIGRATIONS, ("eur", "km"), settings)
            with psycopg.connect(database.url(), autocommit=True) as superuser:
                superuser.execute(WITHOUT_GRANT)
                superuser.execute(FORGET_ATTVER)
        upgrade(folder / "15", folder / "18")
        server = embedded.start(folder / "18")
        try:
            yield replace(database, server_url=server.superuser_url())
        finally:
            server.release()


def upgrade(old: Path, new: Path) -> None:
    """Run the initdb and the pg_upgrade of PostgreSQL 18, with the password and the settings of the old cluster."""
    new.mkdir()
    password_file = new / "superuser.password"
    shutil.copy(old / "superuser.password", password_file)
    user = _given_to_servers_account(old, new)
    given = ("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-data-checksums", "--no-sync")
    _run(new, user, "initdb", "--pgdata", new / "data", "--username", "postgres", "--pwfile", password_file, *given)
    folders = ("--old-datadir", old / "data", "--new-datadir", new / "data", "--socketdir", new)
    programs = ("--old-bindir", debian.BINARIES, "--new-bindir", binary("initdb").parent)
    _run(new, user, "pg_upgrade", *folders, *programs, "--username", "postgres", "--link", "--no-sync")


def _given_to_servers_account(*folders: Path) -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam(embedded.SERVER_ACCOUNT)
    for path in (path for folder in folders for path in (folder, *folder.rglob("*"))):
        os.chown(path, account.pw_uid, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _run(folder: Path, user: dict[str, Any], program: str, *arguments: str | Path) -> None:
    environment = os.environ | {"PGPASSWORD": (folder / "superuser.password").read_text()}
    command = [str(each) for each in (binary(program), *arguments)]
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False, text=True, **user)
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-2000:]


@pytest.fixture
def run(upgraded: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    return script_runner(upgraded, monkeypatch, "shared")


def found_in(database: Database) -> list[Finding]:
    with engine(database).connect() as connection:
        # The deparsed bodies of functions differ after an upgrade.
        return findings(connection)


def test_after_the_upgrade_create_roles_gives_the_migrator_its_tenants_back(
    run: Run, upgraded: Database, tmp_path: Path
) -> None:
    found = {(finding.check, finding.where, finding.remedy) for finding in found_in(upgraded)}
    again = "Run `python -m scripts.create_roles` again."
    assert {one for one in found if one[0] != "catalogue_open"} == {
        ("administration", "role tenant_km", again),
        ("membership", "role tenant_eur", again),  # 15 has no options of memberships: the migrator inherits.
    }
    assert run("reset_tenant_login", "eur").exit_code == 0
    assert run("reset_tenant_login", "km").exit_code == 1
    repaired = run("create_roles", "--superuser-url", upgraded.url())
    assert repaired.exit_code == 0, repaired.output
    assert found_in(upgraded) == []
    bundles = str(tmp_path)
    for command in (
        ("reset_tenant_login", "km", "--raise-epoch"),
        ("rename_tenant", "km", "euro"),
        ("backup_tenant", "euro", "--to", bundles),
        ("restore_tenant", "BUNDLE", "--yes"),
        ("archive_tenant", "euro"),
        ("drop_tenant", "euro", "--no-backup", "--yes"),
        ("provision_tenant", "pln", "--currency", "PLN"),
    ):
        bundle = next(iter(sorted(map(str, tmp_path.glob("euro-*")))), "")
        done = run(*(bundle if word == "BUNDLE" else word for word in command))
        assert done.exit_code == 0, f"{command}: {done.output}"
    assert found_in(upgraded) == []
