"""Client processes that wait for a start message, pay for the same few seconds, and report their payments.

They are forked from a server process that has imported all modules and has no connection, thread or lock of this one.
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

JOIN_SECONDS = 10


class Client(Protocol):
    """Makes one payment at a time."""

    def session(self) -> AbstractContextManager[object]:
        """Open during the payments of one slice."""

    def pay(self) -> str:
        """Make a payment; returns the tenant's slug. An exception ends the benchmark."""


# The payments of one client in a slice by tenant, and the latency of each in ms.
Payments = tuple[Counter[str], "array[float]"]


class ClientPool:
    """A way (see measurement.Way) whose clients are processes, or threads of a few processes."""

    def __init__(self, name: str, title: str, pipes: Sequence["Connection"]) -> None:
        self.name = name
        self.title = title
        self._pipes = pipes

    def run(self, seconds: float) -> Slice:
        started = monotonic()
        for pipe in self._pipes:
            pipe.send(started + seconds)
        payments: list[Payments] = [one for pipe in self._pipes for one in _receive(pipe)]
        # Payments in progress at the end are finished and counted, so their time counts too.
        took = monotonic() - started
        latencies = [latency for _, each in payments for latency in each]
        return Slice(took, latencies, total(paid for paid, _ in payments))


@contextmanager
def client_pool(
    name: str, title: str, make_clients: Callable[..., Sequence[Client]], arguments_of_each: Sequence[tuple[Any, ...]]
) -> Iterator[ClientPool]:
    """Start a process for each of the arguments. It calls `make_clients(*arguments)`; each client has a thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scripts.benchmarks.clients"])
    processes, pipes = [], []
    try:
        for arguments in arguments_of_each:
            pipe, child_pipe = context.Pipe()
            process = context.Process(target=_run_clients, args=(child_pipe, make_clients, arguments), daemon=True)
            process.start()
            child_pipe.close()
            processes.append(process)
            pipes.append(pipe)
        for pipe in pipes:
            _receive(pipe)
        yield ClientPool(name, title, pipes)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(JOIN_SECONDS)
            process.kill()


def _receive(pipe: "Connection") -> Any:
    try:
        return pipe.recv()
    except EOFError:
        raise BenchmarkFailed("A client process ended too early: its error is printed above.") from None


def _run_clients(pipe: "Connection", make_clients: Callable[..., Sequence[Client]], arguments: tuple[Any, ...]) -> None:
    """The main function of a client process. It ignores Ctrl-C, and ends when its parent closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    clients = make_clients(*arguments)
    with ThreadPoolExecutor(len(clients)) as threads:
        message: Any = "ready"
        while True:
            pipe.send(message)
            try:
                until: float = pipe.recv()
            except EOFError:
                return
            message = list(threads.map(_pay_until, clients, [until] * len(clients)))


def _pay_until(client: Client, until: float) -> Payments:
    paid: Counter[str] = Counter()
    latencies_ms = array("d")
    with client.session():
        while (started := monotonic()) < until:
            slug = client.pay()
            latencies_ms.append((monotonic() - started) * 1000)
            paid[slug] += 1
    return paid, latencies_ms
