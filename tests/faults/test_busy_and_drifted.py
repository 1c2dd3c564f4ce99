"""One tenant is busy or has drifted: all others are migrated, and the report names the cause."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import perf_counter

import psycopg
import pytest

from tenant_schemas.migrations.history import Migrations
from tenant_schemas.testing.plugin import Database
from tests.faults.conftest import TENANTS, Program, wait_for
from tests.faults.probes import WHOLE_AFTER, WHOLE_BEFORE, states

BUSY = "t07"
LOCK_TIMEOUT_SECONDS = 0.3
# Time for a reader's own work on a busy machine, after a wait of the whole lock timeout.
SLACK_SECONDS = 0.7
OTHERS_DONE = f"SELECT count(*) = {TENANTS - 1} FROM shared.migration_outcomes WHERE status = 'done'"


def start(fleet: Database, histories: Migrations, *options: str) -> Program:
    lock_timeout = ("--lock-timeout", str(int(LOCK_TIMEOUT_SECONDS * 1000)))
    return Program(
        fleet, "tests.faults.migrator", histories.setup_cfg, "--jobs", "3", "--json", *lock_timeout, *options
    )


@contextmanager
def idle_reader(fleet: Database) -> Iterator[psycopg.Connection]:
    """A reader of the busy tenant's table whose db transaction stays open."""
    with psycopg.connect(fleet.url(), application_name="a forgotten shell") as reader:
        reader.execute(f"SELECT FROM {BUSY}_schema.wallets".encode())
        yield reader


class Readers:
    """The tenant's own readers, with one short db transaction after another."""

    def __init__(self, fleet: Database) -> None:
        self._url = fleet.url()
        self._over = Event()
        self._thread = Thread(target=self._read)
        self.longest_seconds = 0.0
        self.reads = 0

    def __enter__(self) -> "Readers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _read(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._over.wait(0.005):
                begun = perf_counter()
                connection.execute(f"SELECT FROM {BUSY}_schema.wallets".encode())
                self.longest_seconds = max(self.longest_seconds, perf_counter() - begun)
                self.reads += 1


def test_a_busy_tenant_goes_to_the_back_of_the_queue_and_is_done_when_it_is_free(
    fleet: Database, histories: Migrations
) -> None:
    """Meanwhile a reader never waits longer than the migrator's own lock timeout."""
    with Readers(fleet) as readers, idle_reader(fleet) as reader:
        program = start(fleet, histories)
        wait_for(fleet, OTHERS_DONE)
        wait_for(fleet, "SELECT sqlstate = '55P03' FROM shared.migration_outcomes WHERE slug = %s", BUSY)
        found = states(fleet)
        assert found.pop(BUSY) == WHOLE_BEFORE
        assert set(found.values()) == {WHOLE_AFTER}
        reader.rollback()
        ended = program.end()
    assert ended.code == 0, ended
    assert states(fleet)[BUSY] == WHOLE_AFTER
    by_slug = {outcome["slug"]: outcome for outcome in ended.told}
    assert by_slug[BUSY]["attempts"] > 1
    assert readers.reads > 0
    assert readers.longest_seconds < LOCK_TIMEOUT_SECONDS + SLACK_SECONDS


def test_a_tenant_that_stays_busy_is_reported_with_who_held_it(fleet: Database, histories: Migrations) -> None:
    with idle_reader(fleet) as reader:
        ended = start(fleet, histories, "--attempts", "2").end()
        pid = reader.info.backend_pid
    assert ended.code == 1, ended
    by_slug = {outcome["slug"]: outcome for outcome in ended.told}
    failed = by_slug.pop(BUSY)
    assert failed["sqlstate"] == "55P03"
    assert failed["attempts"] == 2
    for part in ("postgres", str(pid), "a forgotten shell", "idle in transaction"):
        assert part in failed["blockedBy"]
    assert not any(outcome["error"] for outcome in by_slug.values())
    found = states(fleet)
    assert found.pop(BUSY) == WHOLE_BEFORE
    assert set(found.values()) == {WHOLE_AFTER}


@pytest.mark.parametrize(
    ("by_hand", "sqlstate"),
    [
        (f"ALTER TABLE {BUSY}_schema.wallets ADD COLUMN probe text", "42701"),
        (f"CREATE TABLE {BUSY}_schema.probe ()", "42P07"),
        (f"UPDATE {BUSY}_schema.alembic_version SET version_num = '0001'", "TS001"),
    ],
    ids=["column", "table", "revision"],
)
def test_a_tenant_that_was_changed_by_hand_fails_alone(
    fleet: Database, histories: Migrations, by_hand: str, sqlstate: str
) -> None:
    with fleet.as_superuser() as superuser:
        superuser.execute(by_hand.encode())
    before = states(fleet)[BUSY]
    ended = start(fleet, histories).end()
    assert ended.code == 1, ended
    failed = [outcome for outcome in ended.told if outcome["error"]]
    assert [(outcome["slug"], outcome["sqlstate"], outcome["attempts"]) for outcome in failed] == [(BUSY, sqlstate, 1)]
    found = states(fleet)
    assert found.pop(BUSY) == before
    assert set(found.values()) == {WHOLE_AFTER}
