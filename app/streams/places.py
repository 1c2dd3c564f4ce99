"""How many streams a process holds at once. Each occupies a thread of the server for as long as it lasts."""

from collections import Counter
from threading import Lock
from typing import Final
from uuid import UUID

from app.errors import TooManyRequests
from app.metrics.definitions import EVENT_STREAMS

PER_CALLER: Final = 6  # What a browser opens to one host at once over HTTP/1.1.
TENANT_PART: Final = 2  # One tenant takes at most one in so many of the places.


class TooManyStreams(TooManyRequests):
    """This process, tenant or caller has as many streams as it may have."""

    code = "too_many_streams"


class StreamPlaces:
    """The places of this process. Thread-safe."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._lock = Lock()
        self._taken: Counter[UUID] = Counter()  # By tenant and by caller: their ids are all different.
        self._open = 0

    def take(self, tenant_id: UUID, caller_id: UUID, audience: str) -> None:
        """Take a place until `give_back`. Raises TooManyStreams. `audience` is a label of EVENT_STREAMS."""
        with self._lock:
            if self._taken[caller_id] >= PER_CALLER:
                raise TooManyStreams(f"You have {PER_CALLER} streams open already; close one of them.")
            if self._open >= self._places or self._taken[tenant_id] >= max(1, self._places // TENANT_PART):
                raise TooManyStreams("All streams are taken; connect again in a minute, or poll meanwhile.")
            self._open += 1
            self._taken.update((tenant_id, caller_id))
        EVENT_STREAMS.labels(audience).inc()

    def give_back(self, tenant_id: UUID, caller_id: UUID, audience: str) -> None:
        with self._lock:
            self._open -= 1
            self._taken.subtract((tenant_id, caller_id))
            self._taken += Counter()  # Forgets those without a stream.
        EVENT_STREAMS.labels(audience).dec()
