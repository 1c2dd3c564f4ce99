"""Throw-away servers.

A test run makes each cluster, with its template database, once: the first process that needs it makes and stops it, and
every process (a worker of pytest-xdist) starts a copy of its files. The last process removes the original. Nothing
outlives the run, so nothing can be stale.
"""

import fcntl
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tenant_schemas import embedded
from tenant_schemas.testing.databases import Database, drop_template, forget_server
from tenant_schemas.testing.folders import claimed, new_folder

# No durability is needed, so nothing waits for the disk. JIT compilation costs more than any query here.
FAST_SETTINGS: Final = (
    *("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=600"),
    *("checkpoint_timeout=1h", "autovacuum=off", "jit=off"),
)

# Starts the server whose cluster is in the folder, makes the cluster if there is none, yields a superuser's URL, and
# stops the server.
Running = Callable[[Path], AbstractContextManager[str]]


@contextmanager
def running_embedded(folder: Path) -> Iterator[str]:
    """The embedded server of this folder; see `Running`."""
    server = embedded.start(folder, FAST_SETTINGS)
    try:
        yield server.superuser_url()
    finally:
        server.release()


@contextmanager
def own_template(running: Running, make: Callable[[str], Database], shared: Path) -> Iterator[Database]:
    """The template that `make` makes, on a server of this process's own.

    `make` gets the URL of the original server. All processes with the same folder `shared` use copies of that server.
    """

    def describe(server_url: str) -> str:
        try:
            return make(server_url).to_json()
        finally:
            forget_server(server_url)

    with copied_server(running, describe, shared) as (server_url, described):
        try:
            yield Database.from_json(described, server_url)
        finally:
            forget_server(server_url)


@contextmanager
def shared_template(server_url: str, make: Callable[[str], Database], shared: Path) -> Iterator[Database]:
    """The template that `make` makes, on the one server of all processes with the same folder `shared`."""

    def drop(described: str) -> None:
        drop_template(Database.from_json(described, server_url))

    with made_once(shared, lambda: make(server_url).to_json(), drop) as described:
        try:
            yield Database.from_json(described, server_url)
        finally:
            forget_server(server_url)


@contextmanager
def copied_server(running: Running, furnish: Callable[[str], str], shared: Path) -> Iterator[tuple[str, str]]:
    """A superuser's URL on a server of this process's own, and the result of `furnish` on the original server."""
    with made_once(shared, partial(_make_original, running, furnish), _remove_original) as made:
        original, furnished = json.loads(made)
        folder = new_folder()
        try:
            with claimed(Path(original)), claimed(folder):
                subprocess.run(["cp", "-a", f"{original}/.", str(folder)], check=True)  # noqa: S603, S607
                with running(folder) as server_url:
                    yield server_url, furnished
        finally:
            shutil.rmtree(folder)


@contextmanager
def made_once(shared: Path, make: Callable[[], str], remove: Callable[[str], None]) -> Iterator[str]:
    """The result of `make` in the first process with this folder. The last process to leave calls `remove`."""
    shared.mkdir(exist_ok=True)
    note = shared / "made"
    with (shared / "share.lock").open("a") as share:
        with _alone(shared):
            fcntl.flock(share, fcntl.LOCK_SH)
            if not note.exists():
                note.write_text(make())
        try:
            yield note.read_text()
        finally:
            with _alone(shared):
                try:
                    fcntl.flock(share, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    pass  # Another process still uses it.
                else:
                    remove(note.read_text())
                    note.unlink()


@contextmanager
def _alone(shared: Path) -> Iterator[None]:
    with (shared / "decision.lock").open("a") as decision:
        fcntl.flock(decision, fcntl.LOCK_EX)
        yield


def _make_original(running: Running, furnish: Callable[[str], str]) -> str:
    folder = new_folder()
    try:
        with claimed(folder), running(folder) as server_url:
            furnished = furnish(server_url)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return json.dumps([str(folder), furnished])


def _remove_original(made: str) -> None:
    shutil.rmtree(json.loads(made)[0])
