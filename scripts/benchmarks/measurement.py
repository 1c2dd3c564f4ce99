"""Short slices of work, interleaved, and what they come to.

A machine is never equally quiet for a minute. Ways that are compared run in turns of a few seconds, so that a noisy
neighbour slows them all, and the median of the slices forgets the ones it hit.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol, TypeVar

W = TypeVar("W")


class BenchmarkFailed(Exception):
    """Something was refused or broke. A rate with refusals in it means nothing, so there is no result."""


@dataclass(frozen=True, slots=True)
class Slice:
    """What all clients together got done. `paid` counts our payments by tenant; it is empty for other work."""

    seconds: float
    latencies_ms: Sequence[float]
    paid: Mapping[str, int]

    @property
    def rate(self) -> float:
        return len(self.latencies_ms) / self.seconds


class Way(Protocol):
    """One way of doing the work that is measured."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    def run(self, seconds: float) -> Slice: ...


@dataclass(frozen=True, slots=True)
class Figures:
    """One way's slices in a few numbers."""

    name: str
    title: str
    rates: tuple[float, ...]
    p50_ms: float
    p99_ms: float

    @property
    def median_rate(self) -> float:
        return median(self.rates)


def interleave(ways: Sequence[W], rounds: int) -> Iterator[tuple[int, W]]:
    """Each way once a round. Round 0 is for warming up, and does not count.

    The order is rotated, and every second round reversed: none is always first, or always after the same other.
    """
    for number in range(rounds + 1):
        turn = number % len(ways)
        order = (*ways[turn:], *ways[:turn])
        for way in reversed(order) if number % 2 else order:
            yield number, way


def measure(
    ways: Sequence[Way], *, rounds: int, seconds: float, announce: Callable[[str], None]
) -> tuple[list[Figures], Counter[str]]:
    """Run them all; returns their figures, and the payments made in each tenant, those of the warm-up included."""
    slices: dict[str, list[Slice]] = {way.name: [] for way in ways}
    paid: Counter[str] = Counter()
    for number, way in interleave(ways, rounds):
        announce(f"round {number} of {rounds}: {way.title}" if number else f"warming up: {way.title}")
        done = way.run(seconds)
        paid.update(done.paid)
        if number:
            slices[way.name].append(done)
    return [_figures(way, slices[way.name]) for way in ways], paid


def _figures(way: Way, slices: Sequence[Slice]) -> Figures:
    latencies = sorted(latency for one in slices for latency in one.latencies_ms)
    return Figures(
        way.name, way.title, tuple(one.rate for one in slices), percentile(latencies, 50), percentile(latencies, 99)
    )


def percentile(in_order: Sequence[float], percent: int) -> float:
    """The nearest rank: a latency that somebody waited, never one between two."""
    if not in_order:
        raise BenchmarkFailed("Nothing at all was done in the time given; try longer slices.")
    return in_order[max(0, -(-len(in_order) * percent // 100) - 1)]


def total(parts: Iterable[Mapping[str, int]]) -> Counter[str]:
    """The payments of all clients."""
    together: Counter[str] = Counter()
    for part in parts:
        together.update(part)
    return together
