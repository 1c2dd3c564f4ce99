"""On a server that workers share, a test that may change roles runs alone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from tenant_schemas.testing.plugin import Database
from tenant_schemas.testing.shared_server_lock import SharedServerLock

LONGEST_SECONDS = 20
# Not the key of the run of tests that this is a part of.
LOCK_KEY = 1


def item(*fixtures: str, marker: str = "") -> Any:
    return SimpleNamespace(fixturenames=fixtures, get_closest_marker=lambda name: name if name == marker else None)


READS = item("template", "database")
BREAKS = item("template", "fresh_database")
CHANGES_ROLES = item("template", "database", marker="changes_roles")
PURE = item("tmp_path")


@pytest.fixture
def workers(database: Database) -> Iterator[tuple[SharedServerLock, SharedServerLock]]:
    """Two workers of one run."""
    workers = SharedServerLock(database.server_url, LOCK_KEY), SharedServerLock(database.server_url, LOCK_KEY)
    yield workers
    for worker in workers:
        worker.pytest_unconfigure()


@contextmanager
def running(worker: SharedServerLock, test: Any) -> Iterator[None]:
    """The time that the test runs in this worker."""
    protocol = worker.pytest_runtest_protocol(test)
    next(protocol)
    yield
    with pytest.raises(StopIteration):
        next(protocol)


def waiting(database: Database) -> int:
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
    with psycopg.connect(database.server_url) as superuser:
        ((count,),) = superuser.execute(query, (LOCK_KEY,)).fetchall()
    return int(count)


def run(worker: SharedServerLock, test: Any) -> None:
    with running(worker, test):
        pass


@pytest.mark.parametrize(("one", "other"), [(READS, READS), (READS, PURE), (BREAKS, PURE), (CHANGES_ROLES, PURE)])
def test_these_run_beside_each_other(workers: tuple[SharedServerLock, SharedServerLock], one: Any, other: Any) -> None:
    with running(workers[0], one), running(workers[1], other):
        pass


@pytest.mark.parametrize(("one", "other"), [(READS, BREAKS), (BREAKS, READS), (BREAKS, BREAKS), (READS, CHANGES_ROLES)])
def test_these_wait_for_each_other(
    database: Database, workers: tuple[SharedServerLock, SharedServerLock], one: Any, other: Any
) -> None:
    with ThreadPoolExecutor(1) as threads:
        with running(workers[0], one):
            waits = threads.submit(run, workers[1], other)
            deadline = monotonic() + LONGEST_SECONDS
            while not waiting(database) and monotonic() < deadline:
                sleep(0.01)
            assert waiting(database) == 1
            assert not waits.done()
        waits.result(LONGEST_SECONDS)


def test_the_turn_of_a_test_that_failed_ends_too(workers: tuple[SharedServerLock, SharedServerLock]) -> None:
    protocol = workers[0].pytest_runtest_protocol(BREAKS)
    next(protocol)
    with pytest.raises(KeyboardInterrupt):
        protocol.throw(KeyboardInterrupt())
    with running(workers[1], BREAKS):
        pass
