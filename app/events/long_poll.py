"""Waits for the next page of the feed, for a client that polls.

A waiting request has a thread of the server and nothing else: no slot and no database connection. It asks again twice a
second. So few may wait at once; for all others there is no waiting: their answer is empty, and says when to ask again.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final
from uuid import UUID

from app.current import request
from app.db import db
from app.events.feed import FeedPage
from app.limits.concurrency import release_slot
from tenant_schemas.context import current_tenant

POLL_SECONDS: Final = 0.5
AT_ONCE: Final = 24
AT_ONCE_OF_TENANT: Final = 6


class Waiting:
    """Who waits in this process. Thread-safe."""

    def __init__(self, at_once: int = AT_ONCE, at_once_of_tenant: int = AT_ONCE_OF_TENANT) -> None:
        self._at_once = at_once
        self._at_once_of_tenant = at_once_of_tenant
        self._lock = Lock()
        self._waiting: Counter[UUID] = Counter()

    @contextmanager
    def place(self, tenant_id: UUID) -> Iterator[bool]:
        """A place for the block. False: there is none."""
        with self._lock:
            own = self._waiting[tenant_id]
            has_place = own < self._at_once_of_tenant and self._waiting.total() < self._at_once
            self._waiting[tenant_id] += has_place
        try:
            yield has_place
        finally:
            with self._lock:
                self._waiting[tenant_id] -= has_place
                self._waiting += Counter()  # Forgets tenants of whom nobody waits.


WAITING: Final = Waiting()


def wait_for_page(read: Callable[[int], FeedPage], after: int, seconds: float) -> tuple[FeedPage, bool]:
    """The page that `read` gives after a position, as soon as it has an event or the time is over; and whether there
    was a place to wait, if need be. Ends the session's db transaction and returns the request's slot before it waits.
    Raises what `read` raises.
    """
    page = read(after)
    if page.events or seconds <= 0:
        return page, True
    with WAITING.place(current_tenant().id) as has_place:
        if has_place:
            db.session.commit()
            release_slot(request.environ)
            ends_at = time.monotonic() + seconds
            while not page.events and (left := ends_at - time.monotonic()) > 0:
                time.sleep(min(POLL_SECONDS, left))
                page = read(page.position)
    return page, has_place
