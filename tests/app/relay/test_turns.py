"""Tenants take turns."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Event, Lock
from uuid import uuid4

from app.relay.pauses import Pauses
from app.relay.turns import Turns
from tenant_schemas.tenant import Tenant, TenantStatus
from tests.app.relay.test_broker_sink import Clock

PATIENCE_SECONDS = 10

Work = Callable[[Tenant], bool]


def named_tenant(slug: str) -> Tenant:
    return Tenant(uuid4(), slug, f"{slug}_schema", f"tenant_{slug}", slug, TenantStatus.ACTIVE, 1, "0001", {})


@contextmanager
def running(work: Work, threads: int = 1, pauses: Pauses | None = None) -> Iterator[Turns[Tenant]]:
    turns = Turns("test", threads, work, pauses)
    turns.start()
    try:
        yield turns
    finally:
        turns.stop(PATIENCE_SECONDS)


class Journal:
    """Work that notes each turn, and waits while `gate` is closed."""

    def __init__(self, turns_of: Callable[[Tenant], int] = lambda _: 1) -> None:
        self.seen: list[str] = []
        self.gate = Event()
        self.gate.set()
        self.started = Event()
        self._left: dict[str, int] = {}
        self._turns_of = turns_of
        self._lock = Lock()

    def __call__(self, tenant: Tenant) -> bool:
        self.started.set()
        assert self.gate.wait(PATIENCE_SECONDS)
        with self._lock:
            self.seen.append(tenant.slug)
            left = self._left.get(tenant.slug, self._turns_of(tenant)) - 1
            self._left[tenant.slug] = left
        return left > 0


def test_a_tenant_with_much_to_do_goes_behind_the_others_after_each_turn() -> None:
    busy, quiet, third = (named_tenant(slug) for slug in ("busy", "quiet", "third"))
    journal = Journal(lambda tenant: 3 if tenant.slug == "busy" else 1)
    journal.gate.clear()
    with running(journal) as turns:
        for tenant in (busy, quiet, third):
            turns.offer(tenant)
        journal.gate.set()
        assert turns.wait_until_idle(PATIENCE_SECONDS)
    assert journal.seen == ["busy", "quiet", "third", "busy", "busy"]


def test_a_tenant_waits_once_however_often_it_is_offered() -> None:
    busy, quiet = named_tenant("busy"), named_tenant("quiet")
    journal = Journal()
    journal.gate.clear()
    with running(journal) as turns:
        turns.offer(busy)
        assert journal.started.wait(PATIENCE_SECONDS)
        for _ in range(5):
            turns.offer(quiet)
        journal.gate.set()
        assert turns.wait_until_idle(PATIENCE_SECONDS)
    assert journal.seen == ["busy", "quiet"]


def test_a_tenant_offered_during_its_turn_gets_another_one_and_never_two_at_once() -> None:
    tenant = named_tenant("busy")
    running_now, most = 0, 0
    again, lock = Event(), Lock()

    def work(_: Tenant) -> bool:
        nonlocal running_now, most
        with lock:
            running_now += 1
            most = max(most, running_now)
        again.wait(0.05)
        with lock:
            running_now -= 1
        return False

    with running(work, threads=4) as turns:
        for _ in range(4):
            turns.offer(tenant)
            again.wait(0.01)
        assert turns.wait_until_idle(PATIENCE_SECONDS)
    assert most == 1


def test_a_waiting_tenant_is_worked_on_as_its_registry_row_was_last_seen() -> None:
    """Also one with more to do, which is renamed or restored meanwhile."""
    old = named_tenant("old")
    seen: list[str] = []
    gate, started = Event(), Event()

    def work(tenant: Tenant) -> bool:
        seen.append(tenant.slug)
        started.set()
        assert gate.wait(PATIENCE_SECONDS)
        return len(seen) < 3

    with running(work) as turns:
        turns.offer(old)
        assert started.wait(PATIENCE_SECONDS)
        turns.offer(old)
        turns.offer(replace(old, slug="new"))
        gate.set()
        assert turns.wait_until_idle(PATIENCE_SECONDS)
    assert seen == ["old", "new", "new"]


def test_a_failing_tenant_stops_no_other() -> None:
    seen: list[str] = []

    def work(tenant: Tenant) -> bool:
        seen.append(tenant.slug)
        if tenant.slug == "broken":
            raise RuntimeError("This tenant is broken.")
        return False

    with running(work) as turns:
        turns.offer(named_tenant("broken"))
        turns.offer(named_tenant("sound"))
        assert turns.wait_until_idle(PATIENCE_SECONDS)
    assert seen == ["broken", "sound"]


def test_a_failing_tenant_pauses_so_that_it_fills_no_log() -> None:
    tenant, clock = named_tenant("broken"), Clock()
    seen: list[float] = []

    def work(_: Tenant) -> bool:
        seen.append(clock.seconds)
        raise RuntimeError("This tenant is broken.")

    with running(work, pauses=Pauses(clock)) as turns:
        for clock.seconds in range(8):
            turns.offer(tenant)
            assert turns.wait_until_idle(PATIENCE_SECONDS)
    assert seen == [0, 1, 3, 7]


def test_a_slow_tenant_holds_one_thread_only() -> None:
    slow, quick = named_tenant("slow"), named_tenant("quick")
    gate, done = Event(), Event()

    def work(tenant: Tenant) -> bool:
        if tenant.slug == "slow":
            return not gate.wait(PATIENCE_SECONDS)
        done.set()
        return False

    with running(work, threads=2) as turns:
        turns.offer(slow)
        turns.offer(quick)
        assert done.wait(PATIENCE_SECONDS)
        gate.set()


def test_stop_lets_the_running_turn_end_and_takes_no_other() -> None:
    journal = Journal()
    journal.gate.clear()
    turns = Turns("test", 1, journal)
    turns.start()
    turns.offer(named_tenant("first"))
    turns.offer(named_tenant("second"))
    assert journal.started.wait(PATIENCE_SECONDS)
    assert not turns.stop(0.01)
    journal.gate.set()
    assert turns.stop(PATIENCE_SECONDS)
    assert journal.seen == ["first"]
