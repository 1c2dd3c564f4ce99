"""How many streams a process holds at once. Each occupies a thread of the server for as long as it lasts."""

from typing import Final
from uuid import UUID

from app.errors import TooManyRequests
from app.limits.places import NoPlace, Places
from app.metrics.definitions import EVENT_STREAMS

PER_CALLER: Final = 6  # What a browser opens to one host at once over HTTP/1.1.
TENANT_PART: Final = 2  # One tenant takes at most one in so many of the places.


class TooManyStreams(TooManyRequests):
    """This process, tenant or caller has as many streams as it may have."""

    code = "too_many_streams"


class StreamPlaces:
    """The places of this process. Thread-safe."""

    def __init__(self, places: int) -> None:
        self._places = Places(places)
        self._of_tenant = max(1, places // TENANT_PART)

    def take(self, tenant_id: UUID, caller_id: UUID, audience: str) -> None:
        """Take a place until `give_back`. Raises TooManyStreams. `audience` is a label of EVENT_STREAMS."""
        try:
            self._places.take({caller_id: PER_CALLER, tenant_id: self._of_tenant})
        except NoPlace as none:
            if none.holder == caller_id:
                raise TooManyStreams(f"You have {PER_CALLER} streams open already; close one of them.") from None
            raise TooManyStreams("All streams are taken; connect again in a minute, or poll meanwhile.") from None
        EVENT_STREAMS.labels(audience).inc()

    def give_back(self, tenant_id: UUID, caller_id: UUID, audience: str) -> None:
        self._places.give_back((tenant_id, caller_id))
        EVENT_STREAMS.labels(audience).dec()
