"""Client processes that wait for the word, work for the same few seconds, and say what they got done.

They are forked from a server process that has imported everything and holds no connection, thread or lock of ours.
"""

import multiprocessing
import signal
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from scripts.benchmarks.measurement import BenchmarkFailed, Slice, total

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

GOODBYE_SECONDS = 10


class Client(Protocol):
    """Somebody who pays, one payment at a time."""

    def session(self) -> AbstractContextManager[object]:
        """Around the payments of one slice."""

    def pay(self) -> str:
        """Pay once; returns the tenant's slug. Whatever is raised ends the benchmark."""


Takings = tuple[Counter[str], "array[float]"]


class Crew:
    """A way (see measurement.Way) whose clients are processes, or threads in a few processes."""

    def __init__(self, name: str, title: str, doors: Sequence["Connection"]) -> None:
        self.name = name
        self.title = title
        self._doors = doors

    def run(self, seconds: float) -> Slice:
        started = monotonic()
        for door in self._doors:
            door.send(started + seconds)
        takings: list[Takings] = [one for door in self._doors for one in _hear(door)]
        # Payments under way at the end are finished and counted, so the time they took counts too.
        took = monotonic() - started
        latencies = [latency for _, each in takings for latency in each]
        return Slice(took, latencies, total(paid for paid, _ in takings))


@contextmanager
def crew(
    name: str, title: str, hire: Callable[..., Sequence[Client]], shifts: Sequence[tuple[Any, ...]]
) -> Iterator[Crew]:
    """One process for each shift, with the clients that `hire(*shift)` makes there, a thread for each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scripts.benchmarks.clients"])
    processes, doors = [], []
    try:
        for shift in shifts:
            door, their_door = context.Pipe()
            process = context.Process(target=_serve, args=(their_door, hire, shift), daemon=True)
            process.start()
            their_door.close()
            processes.append(process)
            doors.append(door)
        for door in doors:
            _hear(door)
        yield Crew(name, title, doors)
    finally:
        for door in doors:
            door.close()
        for process in processes:
            process.join(GOODBYE_SECONDS)
            process.kill()


def _hear(door: "Connection") -> Any:
    try:
        return door.recv()
    except EOFError:
        raise BenchmarkFailed("A client gave up; what it met stands above.") from None


def _serve(door: "Connection", hire: Callable[..., Sequence[Client]], shift: tuple[Any, ...]) -> None:
    """A client process. Ctrl-C is its parent's affair: it ends when the parent closes the door, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    clients = hire(*shift)
    with ThreadPoolExecutor(len(clients)) as threads:
        said: Any = "ready"
        while True:
            door.send(said)
            try:
                until: float = door.recv()
            except EOFError:
                return
            said = list(threads.map(_work, clients, [until] * len(clients)))


def _work(client: Client, until: float) -> Takings:
    paid: Counter[str] = Counter()
    latencies_ms = array("d")
    with client.session():
        while (started := monotonic()) < until:
            slug = client.pay()
            latencies_ms.append((monotonic() - started) * 1000)
            paid[slug] += 1
    return paid, latencies_ms
