"""Processes share one server in a folder; the last one to exit stops it, and no crash makes it unusable."""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import psycopg
import pytest

from tenant_schemas import embedded

FAST = ("fsync=off", "max_connections=10", "shared_buffers=1MB")
HOLD = """
import sys
from pathlib import Path
from tenant_schemas import embedded
server = embedded.start(Path(sys.argv[1]), sys.argv[2:])
print(server.port, flush=True)
sys.stdin.read()
"""
# A worker forked from a holder of the server; it ends like any Python process.
FORK = """
import os, sys
from pathlib import Path
from tenant_schemas import embedded
server = embedded.start(Path(sys.argv[1]), sys.argv[2:])
child = os.fork()
if child == 0:
    sys.exit(0)
os.waitpid(child, 0)
print(server.port, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def made_once() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tenant-schemas-embedded-") as folder:
        yield Path(folder)


@pytest.fixture
def cluster(made_once: Path) -> Iterator[Path]:
    """A folder with a cluster in it. Every test begins with its server stopped, even after a failed test."""
    yield made_once
    pid = postmaster(made_once)
    if pid and answers(made_once, embedded._port(made_once)):
        os.kill(pid, signal.SIGQUIT)
        wait_until(lambda: postmaster(made_once) is None)


@pytest.fixture
def reaper() -> Iterator[None]:
    """Make this process the parent of orphans, as init would be, so that a dead server leaves no zombie."""
    prctl, set_child_subreaper = ctypes.CDLL(None).prctl, 36
    prctl(set_child_subreaper, 1, 0, 0, 0)
    yield
    prctl(set_child_subreaper, 0, 0, 0, 0)


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = monotonic() + 10
    while not condition():
        if monotonic() > deadline:
            return False
        sleep(0.01)
    return True


@contextmanager
def process(folder: Path, script: str = HOLD) -> Iterator[subprocess.Popen[str]]:
    """Another process that starts the server. It releases the server when its stdin ends."""
    command = [sys.executable, "-c", script, str(folder), *FAST]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield holder
    finally:
        holder.communicate(timeout=30)


def port_of(holder: subprocess.Popen[str]) -> int:
    """The port that it printed; the server is then up."""
    assert holder.stdout
    return int(holder.stdout.readline())


def let_go(holder: subprocess.Popen[str]) -> None:
    assert holder.stdin
    holder.stdin.close()
    assert holder.wait(timeout=30) == 0
    holder.stdin = None


def answers(folder: Path, port: int) -> bool:
    password = (folder / "superuser.password").read_text()
    try:
        with psycopg.connect(f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres") as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def postmaster(folder: Path) -> int | None:
    """The pid of the running server, if there is one."""
    file = folder / "data" / "postmaster.pid"
    return int(file.read_text().splitlines()[0]) if file.exists() else None


def test_two_processes_share_a_server_and_the_last_one_out_stops_it(cluster: Path) -> None:
    with process(cluster) as first, process(cluster) as second:
        port = port_of(first)
        assert port_of(second) == port
        pid = postmaster(cluster)
        let_go(first)
        assert answers(cluster, port)
        assert postmaster(cluster) == pid
        let_go(second)
    assert not answers(cluster, port)
    assert postmaster(cluster) is None


def test_within_a_process_too_the_last_share_counts_and_letting_go_twice_is_once(cluster: Path) -> None:
    one, other = embedded.start(cluster, FAST), embedded.start(cluster, FAST)
    assert one.port == other.port
    one.release()
    one.release()
    assert answers(cluster, other.port)
    other.release()
    other.release()
    assert postmaster(cluster) is None


def test_a_holder_that_was_killed_leaves_a_server_for_the_next_one(cluster: Path) -> None:
    """It could not stop the server. The next process takes it over, and stops it."""
    with process(cluster) as killed:
        port = port_of(killed)
        killed.kill()
        killed.wait()
    assert answers(cluster, port)
    server = embedded.start(cluster, FAST)
    assert server.port == port
    assert answers(cluster, port)
    server.release()
    assert postmaster(cluster) is None


@pytest.mark.usefixtures("reaper")
def test_a_server_that_was_killed_is_started_again_with_what_was_committed(cluster: Path) -> None:
    """It leaves a postmaster.pid without a process."""
    server = embedded.start(cluster, FAST)
    with psycopg.connect(server.superuser_url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    pid = postmaster(cluster)
    assert pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    again = embedded.start(cluster, FAST)
    with psycopg.connect(again.superuser_url()) as connection:
        assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
    assert postmaster(cluster) != pid
    again.release()
    server.release()
    assert postmaster(cluster) is None


def test_a_pid_file_that_names_some_other_program_is_no_server(cluster: Path) -> None:
    """As after a crash of the machine: another program now has the number. It is left alone."""
    embedded.start(cluster, FAST).release()
    owner = (cluster / "data").stat().st_uid  # PostgreSQL looks at programs of its own user only.
    with subprocess.Popen(["sleep", "60"], user=owner if os.geteuid() == 0 else None) as stranger:
        try:
            lines = [str(stranger.pid), str(cluster / "data"), "0", "1", "", "127.0.0.1", "", "ready"]
            (cluster / "data" / "postmaster.pid").write_text("\n".join(lines) + "\n")
            server = embedded.start(cluster, FAST)
            assert answers(cluster, server.port)
            server.release()
            assert stranger.poll() is None
        finally:
            stranger.kill()
    assert postmaster(cluster) is None


def test_a_forked_worker_that_ends_does_not_stop_the_server_of_its_parent(cluster: Path) -> None:
    """It inherits the share and the exit handler, and is not the last holder."""
    with process(cluster, FORK) as parent:
        port = port_of(parent)
        lives = answers(cluster, port)
        let_go(parent)
    assert lives
    assert postmaster(cluster) is None


def test_a_server_that_does_not_start_says_why_and_nobody_holds_a_share_in_it(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share in a server that never started would prevent the stop of the next one."""
    with monkeypatch.context() as impatient:
        impatient.setattr(embedded, "START_RETRY_SECONDS", 0)
        with pytest.raises(RuntimeError, match="no_such_setting") as refused:
            embedded.start(cluster, ["no_such_setting=1"])
    with (cluster / "share.lock").open("a") as share:
        fcntl.flock(share, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert str(cluster) in str(refused.value)
    server = embedded.start(cluster, FAST)
    server.release()
    assert postmaster(cluster) is None


def test_it_listens_here_only_and_wants_its_password(cluster: Path) -> None:
    server = embedded.start(cluster, FAST)
    try:
        with psycopg.connect(server.superuser_url()) as connection:
            settings = [
                connection.execute(f"SHOW {name}").fetchone()  # type: ignore[arg-type]
                for name in ("listen_addresses", "unix_socket_directories", "password_encryption", "fsync")
            ]
        assert settings == [("127.0.0.1",), ("",), ("scram-sha-256",), ("off",)]
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url("postgres", "guessed", "postgres"))
    finally:
        server.release()
    assert (cluster / "superuser.password").stat().st_mode & 0o777 == 0o600
