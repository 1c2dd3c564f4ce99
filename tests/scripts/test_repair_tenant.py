"""`scripts.repair_tenant` repairs tenants one by one, with an entry in each audit log, and all after a restore of the
database onto a server that has none of their roles.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import Result

from app.tenancy import MIGRATIONS
from tenant_schemas import embedded
from tenant_schemas.embedded import EmbeddedServer, binary
from tenant_schemas.testing.plugin import Database, make_tenant
from tests.factories.doctor import engine, findings
from tests.factories.locks import held_tenant
from tests.factories.script_runner import Run, script_runner

WITHOUT_GRANTS = "REVOKE ALL ON ALL TABLES IN SCHEMA {} FROM {}"


def report(result: Result) -> Mapping[str, Mapping[str, Any]]:
    """The rows of the report by slug."""
    return {each["slug"]: each for each in json.loads(result.stdout)}


def may_read(database: Database, slug: str) -> bool:
    query = "SELECT has_table_privilege(%s, %s, 'SELECT')"
    return database.as_superuser().execute(query, (f"tenant_{slug}", f"{slug}_schema.wallets")).fetchone() == (True,)


def take_grants(database: Database, *slugs: str) -> None:
    for slug in slugs:
        database.as_superuser().execute(WITHOUT_GRANTS.format(f"{slug}_schema", f"tenant_{slug}").encode())


def test_a_dry_run_shows_the_statements_and_changes_nothing(run: Run, fresh_database: Database) -> None:
    take_grants(fresh_database, "km")
    planned = report(run("repair_tenant", "km", "--dry-run", "--json"))["km"]
    assert 'GRANT SELECT ON TABLE wallets TO "tenant_km"' in planned["changes"]
    assert not may_read(fresh_database, "km")
    done = run("repair_tenant", "km", "--json")
    assert done.exit_code == 0, done.output
    assert report(done)["km"] == planned
    assert may_read(fresh_database, "km")
    assert report(run("repair_tenant", "km", "--json"))["km"]["changes"] == []
    log = "SELECT action, subject, after->>'statements' FROM km_schema.audit_log ORDER BY seq DESC LIMIT 1"
    entry = fresh_database.as_superuser().execute(log).fetchone()
    assert entry == ("tenant.repair", "km", str(len(planned["changes"])))


def test_a_tenant_that_fails_is_a_row_and_the_others_are_repaired(run: Run, fresh_database: Database) -> None:
    take_grants(fresh_database, "eur", "km")
    fresh_database.as_superuser().execute("UPDATE eur_schema.alembic_version SET version_num = '0001'")
    result = run("repair_tenant", "--all", "--json")
    assert result.exit_code == 1
    assert "is at revision 0001" in report(result)["eur"]["problem"]
    assert report(result)["km"]["problem"] is None
    assert may_read(fresh_database, "km")


def test_the_session_that_locks_a_tenant_is_named(run: Run, fresh_database: Database) -> None:
    take_grants(fresh_database, "km")
    with held_tenant(fresh_database, "km") as pid:
        result = run("repair_tenant", "km", "--lock-timeout", "50", "--json")
    assert result.exit_code == 1
    assert f"process {pid}" in report(result)["km"]["problem"]


def test_a_lost_row_comes_back_from_its_schema(run: Run, fresh_database: Database) -> None:
    """The tenant is the test's own, because its login gets another password."""
    tenant_id = make_tenant(fresh_database, MIGRATIONS, "lone", {"currency": "BAM"}).id
    fresh_database.as_superuser().execute("DELETE FROM shared.tenants WHERE slug = 'lone'")
    assert run("repair_tenant", "lone").exit_code == 2
    assert run("repair_tenant", "lone", "--adopt", "lone_schema").exit_code == 1
    adopting = ("--adopt", "lone_schema", "--id", str(tenant_id), "--currency", "BAM")
    result = run("repair_tenant", "lone", *adopting)
    assert result.exit_code == 0, result.output
    assert run("resume_tenant", "lone").exit_code == 0
    assert fresh_database.as_tenant("lone").execute("SELECT count(*) FROM wallets").fetchone() == (0,)


@pytest.mark.parametrize(
    "arguments",
    [(), ("km", "--all"), ("--all", "--adopt", "x"), ("km", "--id", str(uuid4())), ("nobody",)],
)
def test_wrong_arguments_exit_2(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("repair_tenant", *arguments).exit_code == 2


@pytest.fixture
def new_server() -> Iterator[EmbeddedServer]:
    with tempfile.TemporaryDirectory(prefix="restored-") as folder:
        server = embedded.start(Path(folder), ("fsync=off",))
        try:
            yield server
        finally:
            server.release()


def test_a_restored_database_gets_its_tenants_roles_again(
    fresh_database: Database, new_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """pg_dump writes no roles: pg_restore can't grant to those of the tenants."""
    dump = tmp_path / "dump"
    program("pg_dump", "--format=custom", "--file", str(dump), fresh_database.url())
    restored = replace(fresh_database, server_url=new_server.superuser_url(), _open=[])
    run = script_runner(restored, monkeypatch, "shared")
    assert run("create_roles", "--superuser-url", new_server.superuser_url()).exit_code == 0
    said = program("pg_restore", "--dbname", restored.url(), str(dump), expected=1)
    assert 'role "tenant_km" does not exist' in said
    done = run("repair_tenant", "--all", "--superuser-url", restored.url())
    assert done.exit_code == 0, done.output
    with engine(restored).connect() as connection:
        # The deparsed bodies of functions differ after a dump and restore.
        assert findings(connection) == []
    assert restored.as_tenant("km").execute("SELECT current_schema()::text").fetchone() == ("km_schema",)
    with restored.as_pool() as pool:
        pool.execute("SET ROLE tenant_eur")
    assert run("reset_tenant_login", "km", "--raise-epoch").exit_code == 0
    restored.close()


def program(name: str, *arguments: str, expected: int = 0) -> str:
    command = [str(binary(name)), *arguments]
    finished = subprocess.run(command, capture_output=True, check=False, text=True, env=os.environ)
    assert finished.returncode == expected, finished.stderr[-2000:]
    return finished.stderr
