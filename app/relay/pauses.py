"""Pauses after failures: 1 s at first, twice as long after each further failure, at most 30 s."""

import time
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Final

FIRST_SECONDS: Final = 1.0
LONGEST_SECONDS: Final = 30.0


class Pauses:
    """A pause for each key. Thread-safe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = Lock()
        self._known: dict[Hashable, tuple[float, float]] = {}

    def is_paused(self, key: Hashable) -> bool:
        known = self._known.get(key)
        return known is not None and self._now() < known[1]

    def add(self, key: Hashable) -> float:
        """Note a failure; returns the seconds of the pause. Failures of several threads at once count as one: during a
        pause it stays as it is.
        """
        with self._lock:
            now = self._now()
            known = self._known.get(key)
            if known is not None and now < known[1]:
                return known[0]
            seconds = FIRST_SECONDS if known is None else min(LONGEST_SECONDS, 2 * known[0])
            self._known[key] = (seconds, now + seconds)
            return seconds

    def clear(self, key: Hashable) -> None:
        """Note a success."""
        if key in self._known:
            with self._lock:
                self._known.pop(key, None)
