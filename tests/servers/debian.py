"""A server of Debian's PostgreSQL 15 in its own folder, for one session of tests.

It starts as the embedded server does: passwords (SCRAM), 127.0.0.1 only, and as another user under root, because
PostgreSQL refuses to run as root.
"""

import os
import pwd
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

BINARIES = Path(os.environ.get("POSTGRES_15_BIN", "/usr/lib/postgresql/15/bin"))
SUPERUSER = "postgres"
# Debian's package makes it. Root needs it with other binaries (POSTGRES_15_BIN) too.
ACCOUNT = "postgres"


def is_installed() -> bool:
    return (BINARIES / "initdb").exists()


@contextmanager
def running(settings: Sequence[str]) -> Iterator[str]:
    """A superuser's URL on a new server with these settings of postgresql.conf; the server is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="debian-15-") as folder:
        cluster, password, port = Path(folder) / "data", secrets.token_urlsafe(), _free_port()
        _give_to_account(Path(folder))
        _initialize(cluster, password)
        options = (f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=''", *settings)
        given = " ".join(f"-c {option}" for option in options)
        _run("pg_ctl", "start", "--pgdata", cluster, "--wait", "--log", cluster / "server.log", "--options", given)
        try:
            yield f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{port}/postgres"
        finally:
            _run("pg_ctl", "stop", "--pgdata", cluster, "--wait", "--mode", "fast")


def _initialize(cluster: Path, password: str) -> None:
    handed = cluster.with_name("password")
    handed.touch(mode=0o600)
    handed.write_text(password)
    _give_to_account(handed)
    _run(
        *("initdb", "--pgdata", cluster, "--username", SUPERUSER, "--pwfile", handed, "--no-sync"),
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
