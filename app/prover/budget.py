"""The prover's share of one core."""

from threading import Event
from time import monotonic


class Budget:
    """Sleeps after each step, so that steps take at most `percent` of the time. `stop` ends a sleep early."""

    def __init__(self, percent: float, stop: Event) -> None:
        self._rest = 100 / percent - 1
        self._stop = stop
        self._started = monotonic()

    def start(self) -> None:
        """A step begins now."""
        self._started = monotonic()

    def spend(self) -> bool:
        """A step has ended: rest for its share, and begin the next step. False if the prover is to stop."""
        self._stop.wait((monotonic() - self._started) * self._rest)
        self.start()
        return not self._stop.is_set()
