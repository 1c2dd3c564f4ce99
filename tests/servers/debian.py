"""A server of Debian's PostgreSQL 15 in its own folder, for tests.

It starts as the embedded server does: passwords (SCRAM), 127.0.0.1 only, and as another user under root, because
PostgreSQL refuses to run as root.
"""

import os
import pwd
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tenant_schemas.testing.servers import FAST_SETTINGS

BINARIES = Path(os.environ.get("POSTGRES_15_BIN", "/usr/lib/postgresql/15/bin"))
SUPERUSER = "postgres"
# Debian's package makes it. Root needs it with other binaries (POSTGRES_15_BIN) too.
ACCOUNT = "postgres"


def is_installed() -> bool:
    return (BINARIES / "initdb").exists()


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Start the server of this folder; make its cluster if it has none. Yields a superuser's URL."""
    cluster, password_file, port = folder / "data", folder / "superuser.password", _free_port()
    _give_to_account(folder)
    if not cluster.exists():
        password_file.touch(mode=0o600)
        password_file.write_text(secrets.token_urlsafe())
        _initialize(cluster, password_file)
    options = (f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=''", *FAST_SETTINGS)
    given = " ".join(f"-c {option}" for option in options)
    _run("pg_ctl", "start", "--pgdata", cluster, "--wait", "--log", cluster / "server.log", "--options", given)
    try:
        yield f"postgresql://{SUPERUSER}:{password_file.read_text()}@127.0.0.1:{port}/postgres"
    finally:
        _run("pg_ctl", "stop", "--pgdata", cluster, "--wait", "--mode", "fast")


def _initialize(cluster: Path, password_file: Path) -> None:
    _give_to_account(password_file)
    _run(
        *("initdb", "--pgdata", cluster, "--username", SUPERUSER, "--pwfile", password_file, "--no-sync"),
        *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"),
    )


def _run(program: str, *arguments: str | Path) -> None:
    """Output goes to a file: a server started here would hold a pipe open for ever."""
    account = _account()
    with tempfile.TemporaryFile("w+") as output:
        finished = subprocess.run(
            [BINARIES / program, *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )
        output.seek(0)
        assert finished.returncode == 0, output.read()


def _give_to_account(path: Path) -> None:
    account = _account()
    if account:
        os.chown(path, account.pw_uid, account.pw_gid)


def _account() -> pwd.struct_passwd | None:
    return pwd.getpwnam(ACCOUNT) if os.geteuid() == 0 else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
