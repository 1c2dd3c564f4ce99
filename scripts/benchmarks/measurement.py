"""Measures several ways of doing the same work, in short slices that take turns.

No machine is equally quiet for a whole minute. When the ways take turns of a few seconds, other load on the machine
slows them all, and the median over the slices leaves out the slices that it hit.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol, TypeVar

W = TypeVar("W")


class BenchmarkFailed(Exception):
    """A call was refused or failed. There is no result then: a rate that includes refusals means nothing."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One timed run of a way, all its clients together. `paid` counts payments by tenant; other work has none."""

    seconds: float
    latencies_ms: Sequence[float]
    paid: Mapping[str, int]

    @property
    def rate(self) -> float:
        return len(self.latencies_ms) / self.seconds


class Way(Protocol):
    """One of the compared ways of doing the work, for instance payments through HTTP."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    def run(self, seconds: float) -> Slice: ...


@dataclass(frozen=True, slots=True)
class Figures:
    """The result of one way: the rate of each slice, and percentiles of the latencies of all slices."""

    name: str
    title: str
    rates: tuple[float, ...]
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @property
    def median_rate(self) -> float:
        return median(self.rates)


def interleave(ways: Sequence[W], rounds: int) -> Iterator[tuple[int, W]]:
    """Each way once in each round. Round 0 is the warm-up, and does not count.

    The order is rotated in each round and reversed in every second one, so that no way is always the first, or always
    after the same other way.
    """
    for number in range(rounds + 1):
        turn = number % len(ways)
        order = (*ways[turn:], *ways[:turn])
        for way in reversed(order) if number % 2 else order:
            yield number, way


def measure(
    ways: Sequence[Way], *, rounds: int, seconds: float, announce: Callable[[str], None]
) -> tuple[list[Figures], Counter[str]]:
    """Run all ways; returns their figures, and the payments made in each tenant, those of the warm-up included."""
    slices: dict[str, list[Slice]] = {way.name: [] for way in ways}
    paid: Counter[str] = Counter()
    for number, way in interleave(ways, rounds):
        announce(f"round {number} of {rounds}: {way.title}" if number else f"warm-up: {way.title}")
        done = way.run(seconds)
        paid.update(done.paid)
        if number:
            slices[way.name].append(done)
    return [_figures(way, slices[way.name]) for way in ways], paid


def _figures(way: Way, slices: Sequence[Slice]) -> Figures:
    latencies = sorted(latency for one in slices for latency in one.latencies_ms)
    rates = tuple(one.rate for one in slices)
    return Figures(way.name, way.title, rates, *(percentile(latencies, percent) for percent in (50, 95, 99)))


def percentile(in_order: Sequence[float], percent: int) -> float:
    """The nearest rank: always a measured latency, not a value between two of them."""
    if not in_order:
        raise BenchmarkFailed("No call ended within its slice: raise --seconds.")
    return in_order[max(0, -(-len(in_order) * percent // 100) - 1)]


def total(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    """The payments of all clients, by tenant."""
    sums: Counter[str] = Counter()
    for each in counts:
        sums.update(each)
    return sums
