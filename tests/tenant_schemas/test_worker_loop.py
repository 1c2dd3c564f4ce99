"""A worker repeats its work at an interval, in a thread that an exception does not end."""

import logging
from threading import Event
from threading import enumerate as running_threads
from time import monotonic, sleep

import pytest

from tenant_schemas.worker_loop import start_worker


def is_running(name: str) -> bool:
    return any(thread.name == name for thread in running_threads())


def has_ended(name: str) -> bool:
    deadline = monotonic() + 10
    while is_running(name) and monotonic() < deadline:
        sleep(0.01)
    return not is_running(name)


def test_work_is_repeated_until_the_event_is_set() -> None:
    runs: list[int] = []
    repeated = Event()

    def work() -> None:
        runs.append(len(runs))
        if len(runs) == 3:
            repeated.set()

    stop = start_worker("counter", 0.01, work)
    assert repeated.wait(10)
    assert next(thread.daemon for thread in running_threads() if thread.name == "counter")
    stop.set()
    assert has_ended("counter")
    count = len(runs)
    sleep(0.05)
    assert len(runs) == count


def test_an_exception_is_logged_and_the_work_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    runs: list[int] = []
    recovered = Event()

    def work() -> None:
        runs.append(len(runs))
        if len(runs) == 1:
            raise RuntimeError("The server is away.")
        recovered.set()

    with caplog.at_level(logging.ERROR, logger="tenant_schemas.worker_loop"):
        stop = start_worker("failing", 0.01, work)
        assert recovered.wait(10)
    stop.set()
    assert has_ended("failing")
    (record,) = caplog.records
    assert "Worker failing failed" in record.getMessage()
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "The server is away."


def test_an_interval_of_zero_starts_no_thread() -> None:
    runs: list[int] = []
    stop = start_worker("never", 0, lambda: runs.append(1))
    assert not stop.is_set()
    assert not is_running("never")
    sleep(0.05)
    assert runs == []
