"""Slots go to groups and callers in turns, the free ones to whichever group wants them, and the queue is bounded."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Lock, Thread

import pytest

from app.limits.fair_queue import PAGE_REQUESTS, FairQueue, QueueFull, WaitedTooLong

PATIENCE_SECONDS = 10
PLENTY = 1000


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Requests:
    """Takes slots in threads, and notes who got one, in order."""

    def __init__(self, queue: FairQueue, share: int = PLENTY, most: int = PLENTY) -> None:
        self.queue = queue
        self.share = share
        self.most = most
        self.started: list[str] = []
        self.refused: list[str] = []

    def take(self, group: str, caller: str = "caller", wait_seconds: float = 0.0) -> None:
        self.queue.take(group, caller, share=self.share, most=self.most, wait_seconds=wait_seconds)
        self.started.append(f"{group}/{caller}")

    def fill(self, group: str, caller: str = "caller") -> int:
        """Take slots until one is refused; returns their number."""
        for number in range(PLENTY):
            try:
                self.take(group, caller)
            except QueueFull:
                return number
        raise AssertionError("no limit")

    def wait(self, group: str, caller: str = "caller") -> None:
        """Begin to wait for a slot in a thread."""
        before = self.queue.waiting(group)
        Thread(target=self._wait, args=(group, caller), daemon=True).start()
        wait_until(lambda: self.queue.waiting(group) == before + 1)

    def _wait(self, group: str, caller: str) -> None:
        with suppress(WaitedTooLong):
            self.take(group, caller, PATIENCE_SECONDS)


def test_a_group_alone_gets_all_slots_but_the_spare_ones_and_a_second_group_finds_those() -> None:
    requests = Requests(FairQueue(8, 0))
    assert [requests.fill("eur", f"caller {number}") for number in range(4)] == [5, 1, 0, 0]
    assert requests.fill("km") == 1
    for _ in range(2):
        assert requests.fill("eur") == 0
        requests.queue.release("eur", "caller 0")
    assert requests.fill("km") == 1, "what the first group had beyond its part is the second's"
    assert (requests.queue.running("eur"), requests.queue.running("km")) == (4, 2)


def test_a_group_never_gets_more_than_its_own_maximum_and_no_more_than_its_share_beside_another() -> None:
    few = Requests(FairQueue(100, 0), most=3)
    assert few.fill("eur", "one") + few.fill("eur", "two") == 3
    shared = Requests(FairQueue(100, 0), share=3)
    shared.take("km")
    assert shared.fill("eur", "one") + shared.fill("eur", "two") == 3
    shared.queue.release("km", "caller")
    assert shared.fill("eur", "one") > 20


def test_one_caller_leaves_the_last_slot_of_a_group_to_another_caller() -> None:
    requests = Requests(FairQueue(8, 0), most=4)
    assert requests.fill("eur", "loops") == 3
    with pytest.raises(QueueFull) as caught:
        requests.take("eur", "loops")
    assert caught.value.limit == "caller"
    requests.take("eur", "other")
    assert requests.queue.running("eur") == 4


def test_a_caller_with_one_request_is_served_before_the_tenth_of_another() -> None:
    requests = Requests(FairQueue(1, 50))
    requests.take("eur", "loops")
    for _ in range(10):
        requests.wait("eur", "loops")
    requests.wait("eur", "other")
    requests.wait("km", "third")
    for _ in range(3):
        served = len(requests.started)
        requests.queue.release(*requests.started[-1].split("/"))
        wait_until(lambda served=served: len(requests.started) > served)  # type: ignore[misc]
    assert set(requests.started[1:4]) == {"eur/loops", "eur/other", "km/third"}


def test_a_waiting_request_is_refused_after_its_time_and_leaves_nothing_behind() -> None:
    requests = Requests(FairQueue(1, 5))
    requests.take("eur", "one")
    started = time.monotonic()
    with pytest.raises(WaitedTooLong):
        requests.take("eur", "two", wait_seconds=0.05)
    assert 0.04 < time.monotonic() - started < PATIENCE_SECONDS
    assert requests.queue.waiting("eur") == 0
    requests.queue.release("eur", "one")
    assert not requests.queue._groups
    requests.take("eur", "three")


def test_the_places_to_wait_are_bounded_for_a_caller_a_group_and_the_process() -> None:
    requests = Requests(FairQueue(1, 64))
    requests.take("other")
    for number in range(24):
        requests.wait("eur", "page" if number < PAGE_REQUESTS else f"caller {number}")
        if number == PAGE_REQUESTS:
            with pytest.raises(QueueFull) as caught:
                requests.take("eur", "page")
            assert type(caught.value) is QueueFull
    with pytest.raises(QueueFull) as caught:
        requests.take("eur", "one more")
    assert type(caught.value) is QueueFull, "half of the places that are not spare, beside another group"
    requests.wait("km")


def test_of_many_at_once_no_more_run_than_there_are_slots_and_all_are_served() -> None:
    queue, lock = FairQueue(3, PLENTY), Lock()
    now = most = 0

    def run(number: int) -> None:
        nonlocal now, most
        group, caller = f"tenant {number % 3}", f"caller {number % 7}"
        queue.take(group, caller, share=PLENTY, most=PLENTY, wait_seconds=PATIENCE_SECONDS)
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0)
        with lock:
            now -= 1
        queue.release(group, caller)

    with ThreadPoolExecutor(16) as threads:
        jobs: list[Future[None]] = [threads.submit(run, number) for number in range(3000)]
    assert [job.exception() for job in jobs if job.exception()] == []
    assert most == 3
    assert not queue._groups
    assert (queue._running, queue._waiting) == (0, 0)
