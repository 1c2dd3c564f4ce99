"""Passwords are hashed as RFC 9106 recommends, a few at a time, with the same work for unknown users."""

import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from time import sleep
from typing import Any

import pytest
from argon2 import extract_parameters
from argon2.profiles import RFC_9106_LOW_MEMORY

from app.auth import passwords
from app.auth.passwords import LOW_PRIORITY, UNKNOWN_USER_HASH, hash_password, is_right

# Modules are imported before the suite's fixture makes hashes cheap.
HASHER = passwords._hasher


@pytest.fixture(autouse=True)
def real_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes at their full cost."""
    monkeypatch.setattr(passwords, "_hasher", HASHER)
    monkeypatch.setattr(passwords, "UNKNOWN_USER_HASH", UNKNOWN_USER_HASH)


def test_a_hash_is_argon2id_and_right_for_its_password_only() -> None:
    made = hash_password("correct horse")
    assert made.startswith("$argon2id$")
    assert "correct horse" not in made
    assert is_right("correct horse", made)
    assert not is_right("correct horse ", made)


@pytest.mark.parametrize("stored", ["", "x", "correct horse", "$argon2id$v=19$m=65536,t=3,p=4$broken", "$2b$12$x", "!"])
def test_what_is_no_hash_is_never_right(stored: str) -> None:
    assert not is_right("correct horse", stored)


def test_nobody_costs_what_somebody_costs() -> None:
    """The stand-in has the parameters of new hashes, and verifying against it never succeeds."""
    assert extract_parameters(UNKNOWN_USER_HASH) == extract_parameters(hash_password("x")) == RFC_9106_LOW_MEMORY
    assert not is_right("unknown", None)


class Counting:
    """A slow hasher that counts its concurrent calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.most_at_once = self._now = 0
        self._lock = Lock()

    def verify(self, password_hash: str, password: str) -> bool:
        return self._count(f"verify {password_hash}")

    def hash(self, password: str) -> str:
        self._count("hash")
        return "x"

    def _count(self, call: str) -> bool:
        with self._lock:
            self.calls.append(call)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        sleep(0.02)
        with self._lock:
            self._now -= 1
        return True


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    made = Counting()
    monkeypatch.setattr(passwords, "_hasher", made)
    return made


def test_without_a_hash_the_same_work_is_done_and_the_answer_is_no(counting: Counting) -> None:
    assert is_right("password", "a hash")
    assert not is_right("password", None)
    assert counting.calls == ["verify a hash", f"verify {UNKNOWN_USER_HASH}"]


def test_hashes_at_once_are_bounded(counting: Counting) -> None:
    """Each takes 64 MiB, so many log-ins at once must not exhaust the memory."""
    with ThreadPoolExecutor(9) as pool:
        jobs: list[Future[Any]] = [pool.submit(hash_password, "p") for _ in range(6)]
        jobs += [pool.submit(is_right, "p", None) for _ in range(6)]
    assert all(job.exception() is None for job in jobs)
    assert len(counting.calls) == 12
    assert counting.most_at_once == 1


def test_a_failed_hash_gives_its_turn_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def hash(self, password: str) -> str:
            raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(passwords, "_hasher", Failing())
        for _ in range(2):
            with pytest.raises(MemoryError):
                hash_password("p")
    for _ in range(2):
        assert not is_right("p", "no hash")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux restricts one thread of a process")
def test_hashing_leaves_one_core_to_other_work_and_gives_way_on_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = (os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0))
    seen: list[tuple[set[int], int]] = []

    class Looking:
        def hash(self, password: str) -> str:
            seen.append((os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)))
            return password

    monkeypatch.setattr(passwords, "_hasher", Looking())
    hash_password("p")
    ((cores, priority),) = seen
    assert len(cores) == max(1, len(before[0]) - 1)
    assert min(before[0]) not in cores or len(before[0]) == 1
    assert priority == before[1] + LOW_PRIORITY
    assert (os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)) == before, "the calling thread is as before"
