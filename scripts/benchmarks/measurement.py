"""Measures several ways of doing the same work, in short slices that take turns.

No machine is equally quiet for a whole minute. When the ways take turns of a few seconds, other load on the machine
slows them all, and the median over the slices leaves out the slices that it hit.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Protocol, TypeVar

from scripts.benchmarks.processor_time import cpu_seconds

W = TypeVar("W")
N = TypeVar("N", int, float)


class BenchmarkFailed(Exception):
    """A call was refused or failed. There is no result then: a rate that includes refusals means nothing."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One timed run of a way, all its clients together. `paid` counts payments by tenant; other work has none.
    `cpu_seconds` is the CPU time of each metered process tree.
    """

    seconds: float
    latencies_ms: Sequence[float]
    paid: Mapping[str, int]
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    # If it is not the number of latencies: wrk adds some for the requests that a stalled client would have sent.
    counted: int | None = None

    @property
    def operations(self) -> int:
        return len(self.latencies_ms) if self.counted is None else self.counted

    @property
    def rate(self) -> float:
        return self.operations / self.seconds


class Way(Protocol):
    """One of the compared ways of doing the work, for instance payments through HTTP."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    def run(self, seconds: float) -> Slice: ...


@dataclass(frozen=True, slots=True)
class Figures:
    """The result of one way: the rate of each slice, percentiles of the latencies of all slices, and the CPU time of
    one operation by process tree.
    """

    name: str
    title: str
    rates: tuple[float, ...]
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_us: Mapping[str, float] = field(default_factory=dict)

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
    ways: Sequence[Way],
    *,
    rounds: int,
    seconds: float,
    announce: Callable[[str], None],
    metered: Mapping[str, int] | None = None,
) -> tuple[list[Figures], Counter[str]]:
    """Run all ways; returns their figures, and the payments made in each tenant, those of the warm-up included. The CPU
    time of the `metered` processes, by name, is in the figures, with that of their descendants.
    """
    slices: dict[str, list[Slice]] = {way.name: [] for way in ways}
    paid: Counter[str] = Counter()
    for number, way in interleave(ways, rounds):
        announce(f"round {number} of {rounds}: {way.title}" if number else f"warm-up: {way.title}")
        before = cpu_seconds(metered) if metered else {}
        done = way.run(seconds)
        if metered:
            after = cpu_seconds(metered)
            done = replace(done, cpu_seconds={name: after[name] - before[name] for name in metered})
        paid.update(done.paid)
        if number:
            slices[way.name].append(done)
    return [_figures(way, slices[way.name]) for way in ways], paid


def _figures(way: Way, slices: Sequence[Slice]) -> Figures:
    latencies = sorted(latency for one in slices for latency in one.latencies_ms)
    spent = total(one.cpu_seconds for one in slices)
    operations = max(1, sum(one.operations for one in slices))
    rates = tuple(one.rate for one in slices)
    return Figures(
        way.name,
        way.title,
        rates,
        p50_ms=percentile(latencies, 50),
        p95_ms=percentile(latencies, 95),
        p99_ms=percentile(latencies, 99),
        cpu_us={name: seconds / operations * 1_000_000 for name, seconds in spent.items()},
    )


def percentile(in_order: Sequence[float], percent: int) -> float:
    """The nearest rank: always a measured latency, not a value between two of them."""
    if not in_order:
        raise BenchmarkFailed("No call ended within its slice: raise --seconds.")
    return in_order[max(0, -(-len(in_order) * percent // 100) - 1)]


def total(counts: Iterable[Mapping[str, N]]) -> dict[str, N]:
    """The sums by name, for instance the payments of all clients by tenant."""
    sums: dict[str, N] = {}
    for each in counts:
        for name, count in each.items():
            sums[name] = sums[name] + count if name in sums else count
    return sums
