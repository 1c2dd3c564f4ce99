"""Places for requests that last long, each of which occupies a thread of the server. No tenant and no caller takes all
of them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from uuid import UUID


class NoPlace(Exception):
    """There is no place: `holder` has all of its own, or, if it is None, all are taken."""

    def __init__(self, holder: UUID | None) -> None:
        super().__init__(holder)
        self.holder = holder


class Places:
    """The places of this process. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._open = 0
        self._taken: Counter[UUID] = Counter()

    @property
    def open(self) -> int:
        """How many are taken."""
        return self._open

    def take(self, shares: Mapping[UUID, int]) -> None:
        """Take a place until `give_back`. `shares` has the most places of each holder, like the tenant and the caller.
        Raises NoPlace, for the first holder whose share is taken.
        """
        with self._lock:
            for holder, most in shares.items():
                if self._taken[holder] >= most:
                    raise NoPlace(holder)
            if self._open >= self._most:
                raise NoPlace(None)
            self._open += 1
            self._taken.update(shares.keys())

    @contextmanager
    def taken(self, shares: Mapping[UUID, int]) -> Iterator[None]:
        """A place for the block. Raises what `take` raises."""
        self.take(shares)
        try:
            yield
        finally:
            self.give_back(shares)

    def give_back(self, holders: Iterable[UUID]) -> None:
        with self._lock:
            self._open -= 1
            self._taken.subtract(holders)
            self._taken += Counter()  # Forgets those without a place.
