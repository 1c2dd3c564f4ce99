"""One reader of a tenant's feed for all streams of the tenant in this process.

A thread reads the new events every half second while the tenant has streams, and keeps the newest in memory. So a
stream holds no database connection, and 300 streams of a tenant ask the database as often as one.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition, Event, Lock, Thread
from typing import Final
from uuid import UUID

import structlog

from app.events.feed import FeedEvent
from app.shutdown import is_stopping
from tenant_schemas.tenant import Tenant

log = structlog.get_logger(__name__)

POLL_SECONDS: Final = 0.5
PAGE: Final = 500
KEPT: Final = 2000


class WatchEnded(Exception):
    """The feed can't be read any more, or is another one after a restore. The stream ends and its client connects
    again.
    """


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a feed: its id and the position of its newest event."""

    feed_id: UUID
    position: int


ReadHead = Callable[[], Head]
ReadEvents = Callable[[int, int], list[FeedEvent]]
"""The events after a position, at most so many."""


class FeedWatch:
    """The newest events of one tenant's feed. Thread-safe."""

    def __init__(self, head: Head) -> None:
        self.feed_id: Final = head.feed_id
        self.readers = 0
        self.stop: Final = Event()
        self._position = head.position
        self._oldest = head.position  # All events after it are kept.
        self._kept: list[FeedEvent] = []
        self._has_ended = False
        self._changed = Condition()

    @property
    def position(self) -> int:
        return self._position

    def add(self, events: list[FeedEvent]) -> None:
        with self._changed:
            self._kept += events
            self._position = events[-1].position
            if len(self._kept) > KEPT:
                self._oldest = self._kept[-KEPT - 1].position
                self._kept = self._kept[-KEPT:]
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def after(self, position: int, seconds: float) -> list[FeedEvent] | None:
        """The events after this position; waits for the next one, and returns none after so many seconds. None if the
        oldest of them is no longer kept here. Raises WatchEnded.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or self._position > position, seconds)
            if self._has_ended:
                raise WatchEnded
            if position < self._oldest:
                return None
            return self._kept[bisect_right(self._kept, position, key=lambda event: event.position) :]


class FeedWatches:
    """The watched feeds of this process. Thread-safe."""

    def __init__(self, poll_seconds: float = POLL_SECONDS) -> None:
        self._poll_seconds = poll_seconds
        self._watches: dict[Tenant, FeedWatch] = {}
        self._lock = Lock()

    @contextmanager
    def watching(self, tenant: Tenant, read_head: ReadHead, read_events: ReadEvents) -> Iterator[tuple[FeedWatch, int]]:
        """Share the watch of this tenant for the block; the first block starts its thread, and the last one ends it.
        Gives the position of the feed's end as well: the watch may be half a second behind it. Raises what `read_head`
        raises.
        """
        head = read_head()
        watch = self._join(tenant, head, read_head, read_events)
        try:
            yield watch, head.position
        finally:
            self._leave(tenant, watch)

    def _join(self, tenant: Tenant, head: Head, read_head: ReadHead, read_events: ReadEvents) -> FeedWatch:
        with self._lock:
            watch = self._watches.get(tenant)
            if watch is None or watch.feed_id != head.feed_id or watch.stop.is_set():
                watch = self._watches[tenant] = FeedWatch(head)
                arguments = (tenant, watch, read_head, read_events)
                Thread(target=self._follow, args=arguments, name=f"feed-{tenant.slug}", daemon=True).start()
            watch.readers += 1
            return watch

    def _leave(self, tenant: Tenant, watch: FeedWatch) -> None:
        with self._lock:
            watch.readers -= 1
            if not watch.readers:
                watch.stop.set()
                if self._watches.get(tenant) is watch:
                    del self._watches[tenant]

    def _follow(self, tenant: Tenant, watch: FeedWatch, read_head: ReadHead, read_events: ReadEvents) -> None:
        try:
            while not (watch.stop.wait(self._poll_seconds) or is_stopping.is_set()):
                head = read_head()
                if head.feed_id != watch.feed_id:
                    break
                while head.position > watch.position and (events := read_events(watch.position, PAGE)):
                    watch.add(events)
        except WatchEnded:
            pass
        except Exception:  # The database is away. The clients connect again.
            log.exception("feed_watch_failed", tenant=tenant.slug)
        finally:
            watch.stop.set()
            watch.end()
