"""A PgBouncer in front of a test database, with the configuration that `docs/installation.md` gives."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from tenant_schemas.testing.plugin import Database
from tests.factories.ports import free_port
from tests.factories.served import wait_until_it_listens

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_pgbouncer = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed: apt-get install pgbouncer")
GUIDE = Path(__file__).parents[2] / "docs" / "installation.md"
PASSWORD = "of-the-pooler"


@contextmanager
def running_pgbouncer(folder: Path, database: Database, **changed: str | None) -> Iterator[str]:
    """The URL of the shared side through PgBouncer. `changed` are other values of its settings; None leaves one out."""
    port = free_port()
    _write_files(folder, database, port, changed)
    with _login_of_pgbouncer(database):
        command = [str(PROGRAM), "-q", *_options_under_root(folder), str(folder / "pgbouncer.ini")]
        process = subprocess.Popen(command)
        try:
            wait_until_it_listens(port, process)
            yield sa.make_url(database.app_url).set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        finally:
            process.terminate()
            process.wait(10)


def _write_files(folder: Path, database: Database, port: int, changed: dict[str, str | None]) -> None:
    server, app = sa.make_url(database.server_url), sa.make_url(database.app_url)
    text = _replaced(
        _block("ini"),
        ("wallet = host=db port=5432", f"{database.name} = host={server.host} port={server.port}"),
        ("0.0.0.0", "127.0.0.1"),
        ("6432", str(port)),
        ("/etc/pgbouncer", str(folder)),
    )
    for name, value in changed.items():
        text, number = re.subn(
            rf"^{name} = .*\n", "" if value is None else f"{name} = {value}\n", text, flags=re.MULTILINE
        )
        assert number == 1, f"the guide does not set {name}"
    (folder / "pgbouncer.ini").write_text(f"{text}unix_socket_dir =\nlogfile = {folder}/pgbouncer.log\n")
    (folder / "userlist.txt").write_text(f'"wallet_pooler" "{PASSWORD}"\n"{app.username}" "{app.password}"\n')


@contextmanager
def _login_of_pgbouncer(database: Database) -> Iterator[None]:
    statements = _replaced(_block("sql"), ("DATABASE wallet", f"DATABASE {database.name}"), ("'…'", f"'{PASSWORD}'"))
    with psycopg.connect(database.url(), autocommit=True) as superuser:
        superuser.execute(statements.encode())
        try:
            yield
        finally:
            superuser.execute("DROP SCHEMA pgbouncer CASCADE")
            superuser.execute("DROP OWNED BY wallet_pooler; DROP ROLE wallet_pooler")


def _block(language: str) -> str:
    """The guide's block about PgBouncer in this language."""
    _, _, section = GUIDE.read_text().partition("## PgBouncer\n")
    found = re.search(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert found, f"the guide has no {language} for PgBouncer"
    return found[1]


def _replaced(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text, f"the guide does not say {old!r}"
        text = text.replace(old, new)
    return text


def _options_under_root(folder: Path) -> list[str]:
    """The arguments that make PgBouncer run as the OS user nobody under root, because it refuses to run as root."""
    if os.geteuid() != 0:
        return []
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, "nobody")
    for parent in folder.parents:
        if str(parent) not in {"/", "/tmp"}:
            parent.chmod(parent.stat().st_mode | 0o011)
    return ["-u", "nobody"]
