"""One stream: the events after a position as they come, until the caller's right or token ends.

It holds a thread of the server, and no database connection and no slot for requests. It reads the database only to
catch up from an old position, and every 30 s to ask whether the caller may still listen.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Final
from uuid import UUID

from app.events.cursors import cursor_of
from app.events.errors import FeedChanged, FeedTrimmed
from app.events.feed import FeedEvent, FeedPage, event_json
from app.streams import sse
from app.streams.watch import FeedWatch, WatchEnded

HEARTBEAT_SECONDS: Final = 15.0
STANDING_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 1.0  # So soon a client that has gone is noticed.
PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class Listener:
    """Who listens to what. `read_page` reads the feed after a position, with these filters. `may_listen` asks for the
    caller's standing, `has_gone` whether the client has closed the connection. `ends_at` is a time of the monotonic
    clock.
    """

    types: Collection[str] | None
    wallet_ids: Collection[UUID] | None
    read_page: Callable[[int], FeedPage]
    may_listen: Callable[[], bool]
    has_gone: Callable[[], bool]
    ends_at: float

    def wants(self, event: FeedEvent) -> bool:
        return (self.types is None or event.type in self.types) and (
            self.wallet_ids is None or event.wallet_id in self.wallet_ids
        )


def stream(watch: FeedWatch, position: int, listener: Listener, *, gap: str | None = None) -> Iterator[bytes]:
    """The bytes of the stream. `gap` is the reason why it does not start where its client wanted: the first event,
    `resync`, tells it.
    """
    feed_id = watch.feed_id
    yield sse.opening(cursor_of(feed_id, position))
    if gap is not None:
        yield sse.event(cursor_of(feed_id, position), "resync", b'{"reason":"%b"}' % gap.encode())
    asked_at = sent_at = monotonic()
    while (now := monotonic()) < listener.ends_at and not listener.has_gone():
        if now - asked_at > STANDING_SECONDS:
            if not listener.may_listen():
                return
            asked_at = now
        try:
            events, position = _next(watch, position, listener)
        except (WatchEnded, FeedChanged, FeedTrimmed):
            return  # The client connects again, and is told.
        for event in events:
            yield sse.event(cursor_of(feed_id, event.position), event.type, event_json(event, "full"))
        if events:
            sent_at = monotonic()
        elif now - sent_at > HEARTBEAT_SECONDS:
            sent_at = now
            yield sse.heartbeat(cursor_of(feed_id, position))


def _next(watch: FeedWatch, position: int, listener: Listener) -> tuple[list[FeedEvent], int]:
    """The next events that are wanted, and the position after which to go on. Waits a second for them."""
    kept = watch.after(position, LOOK_SECONDS)
    if kept is None:
        page = listener.read_page(position)
        if page.feed_id != watch.feed_id:
            raise WatchEnded
        return page.events, page.position
    wanted = [event for event in kept if listener.wants(event)]
    return wanted, kept[-1].position if kept else position
