"""Point-in-time recovery of one tenant: a side server is recovered to a moment before the mishap, the tenant is backed
up there, and restored on the main server. The commands are those of docs/operations.md.
"""

import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from flask import Flask

from app.config import ROOT
from app.tenancy import MIGRATIONS
from tenant_schemas import embedded
from tenant_schemas.backup.manifest import MANIFEST_NAME
from tenant_schemas.embedded import EmbeddedServer, binary
from tenant_schemas.testing.plugin import Database, copy_of, made_template
from tests.conftest import running_app
from tests.factories.bundles import SLUG, audit, balance, content, furnish, post, without_log
from tests.factories.script_runner import script_runner

pytestmark = pytest.mark.both_servers

RESTORE_POINT = "before_the_mishap"


@contextmanager
def as_servers_user(folder: Path) -> Iterator[dict[str, Any]]:
    """PostgreSQL's own programs refuse root, and the server must own their files."""
    if os.geteuid() != 0:
        yield {}
        return
    account = pwd.getpwnam(embedded.SERVER_ACCOUNT)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid)
    for parent in folder.parents:
        parent.chmod(parent.stat().st_mode | 0o001)
    yield {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


@contextmanager
def running(folder: Path, *settings: str) -> Iterator[EmbeddedServer]:
    server = embedded.start(folder, ("fsync=off", *settings))
    try:
        yield server
    finally:
        server.release()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's own folder: each session of pytest makes it private again."""
    with tempfile.TemporaryDirectory(prefix="point-in-time-") as folder:
        yield Path(folder)


@pytest.fixture
def main_server(folder: Path) -> Iterator[EmbeddedServer]:
    """A server with WAL archiving."""
    with running(folder / "first"):
        pass  # Creates the server's account.
    archive = folder / "archive"
    archive.mkdir()
    with (
        as_servers_user(archive),
        running(folder / "main", "archive_mode=on", f"archive_command='cp %p {archive}/%f'") as server,
    ):
        yield server


@pytest.fixture
def main_database(main_server: EmbeddedServer) -> Iterator[Database]:
    settings = {"eur": {"currency": "EUR"}}
    made = made_template(main_server.superuser_url(), MIGRATIONS, ["eur"], settings)
    with made as template, copy_of(template) as copy:
        yield copy


@pytest.fixture
def main_app(main_database: Database) -> Iterator[Flask]:
    yield from running_app(main_database)


def back_up_server(server: EmbeddedServer, folder: Path) -> None:
    """Run pg_basebackup into the folder of the future side server."""
    folder.mkdir()
    shutil.copy(server.folder / "superuser.password", folder)
    with as_servers_user(folder) as user:
        command = [binary("pg_basebackup"), "--dbname", server.superuser_url(), "--checkpoint", "fast"]
        subprocess.run([*map(str, command), "--pgdata", str(folder / "data")], check=True, cwd="/", **user)


def bring_to(folder: Path, archive: Path, target: str) -> None:
    """Write settings that let a copy replay the archive up to a restore point and then be promoted."""
    with (folder / "data" / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"restore_command = 'cp {archive}/%f %p'\n{target}\nrecovery_target_action = 'promote'\n")
        settings.write("archive_mode = 'off'\n")
    with as_servers_user(folder):
        (folder / "data" / "recovery.signal").touch()


def wait_until(connection: psycopg.Connection[Any], query: str, *params: object) -> None:
    deadline = time.monotonic() + 60
    while connection.execute(query.encode(), params).fetchone() != (True,):
        assert time.monotonic() < deadline, query
        time.sleep(0.1)


def on(server: EmbeddedServer, database: Database) -> Database:
    """The same database on another server."""
    return replace(database, server_url=server.superuser_url(), _open=[])


def runbooks_settings(side: Database) -> dict[str, str]:
    """The runbook's environment variables of the command that backs up from the side server."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    ((line,),) = [re.findall(r"^ +(.*=.*) python -m scripts\.backup_tenant km", text, re.MULTILINE)]
    given = {"DATABASE_URL": side.app_url, "ADMIN_DATABASE_URL": side.admin_url}
    return {name: given[name] if value else "" for name, value in re.findall(r"(\w+)=(\S*)", line)}


def shows_the_time_of_its_data(bundle: Path, database: Database) -> None:
    told = json.loads((bundle / MANIFEST_NAME).read_text())
    as_of, last_change_at = (datetime.fromisoformat(told["data"][name]) for name in ("as_of", "last_change_at"))
    assert told["data"]["recovery_target"] == f"recovery_target_name = {RESTORE_POINT}"
    query = "SELECT max(created_at) FILTER (WHERE amount_minor <> 777), max(created_at) FROM wallet_transactions"
    ((posted_before, posted_after),) = database.as_tenant(SLUG).execute(query)
    assert last_change_at == posted_before <= as_of < posted_after
    assert bundle.name.endswith(f"Z-data-{as_of:%Y%m%dT%H%M%SZ}")


def test_one_tenant_goes_back_to_before_a_mishap_and_the_others_go_on(
    main_server: EmbeddedServer, main_database: Database, main_app: Flask, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKUP_DATABASE_URL", main_database.url(main_database.roles.backup))
    furnished = furnish(main_database, main_app)
    back_up_server(main_server, folder / "side")
    post(main_database, furnished, 100)
    before, was = content(main_database, SLUG), balance(main_database, SLUG, furnished.wallet_id)
    superuser = main_database.as_superuser()
    superuser.execute("SELECT pg_create_restore_point(%s)", (RESTORE_POINT,))
    post(main_database, furnished, 777)
    superuser.execute("UPDATE shared.tenants SET name = 'After' WHERE slug = 'eur'")
    ((written,),) = superuser.execute("SELECT pg_walfile_name(pg_switch_wal())")
    wait_until(superuser, "SELECT last_archived_wal >= %s FROM pg_stat_archiver", written)

    bring_to(folder / "side", folder / "archive", f"recovery_target_name = '{RESTORE_POINT}'")
    with running(folder / "side") as server, closing(on(server, main_database)) as side:
        wait_until(side.as_superuser(), "SELECT NOT pg_is_in_recovery()")
        with pytest.MonkeyPatch.context() as set_for_command:
            for name, value in runbooks_settings(side).items():
                set_for_command.setenv(name, value)
            taken = script_runner(side, monkeypatch)("backup_tenant", SLUG, "--to", str(folder / "bundles"))
        assert taken.exit_code == 0, taken.output
        assert f":{sa.make_url(side.admin_url).port}/" in taken.output

    (bundle,) = (folder / "bundles").iterdir()
    shows_the_time_of_its_data(bundle, main_database)
    run = script_runner(main_database, monkeypatch)
    beside = run("restore_tenant", str(bundle), "--as", "shop2")
    assert beside.exit_code == 0, beside.output
    assert balance(main_database, "shop2", furnished.wallet_id) == was
    assert balance(main_database, SLUG, furnished.wallet_id) == was + 777
    asked = run("restore_tenant", str(bundle), input="\n")
    assert f"recovered to recovery_target_name = {RESTORE_POINT}), backed up" in " ".join(asked.output.split())
    as_it_was = run("restore_tenant", str(bundle), "--yes")
    assert as_it_was.exit_code == 0, as_it_was.output
    assert balance(main_database, SLUG, furnished.wallet_id) == was
    assert without_log(content(main_database, SLUG)) == without_log(before)
    assert audit(main_database, SLUG) == audit(main_database, "shop2") == []
    assert main_database.tenant("eur").name == "After"
