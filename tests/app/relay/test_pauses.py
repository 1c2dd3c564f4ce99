"""Pauses after failures grow, and end with a success."""

import pytest

from app.relay.pauses import LONGEST_SECONDS, Pauses
from tests.app.relay.test_broker_sink import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pauses(clock: Clock) -> Pauses:
    return Pauses(clock)


def test_pauses_grow_up_to_half_a_minute_and_end_with_a_success(pauses: Pauses, clock: Clock) -> None:
    seconds = []
    for _ in range(7):
        seconds.append(pauses.add("x"))
        assert pauses.is_paused("x")
        assert not pauses.is_paused("y")
        clock.seconds += seconds[-1]
        assert not pauses.is_paused("x")
    assert seconds == [1, 2, 4, 8, 16, LONGEST_SECONDS, LONGEST_SECONDS]
    pauses.clear("x")
    assert pauses.add("x") == 1


def test_failures_of_several_threads_at_once_count_as_one(pauses: Pauses, clock: Clock) -> None:
    assert [pauses.add("x") for _ in range(4)] == [1, 1, 1, 1]
    clock.seconds += 1
    assert [pauses.add("x") for _ in range(4)] == [2, 2, 2, 2]
