"""Waits for the next page of the feed, for a client that polls.

A waiting request has a thread of the server and nothing else: no slot and no database connection. It asks again twice a
second. So few may wait at once; for all others there is no waiting: their answer is empty, and says when to ask again.
"""

import time
from collections.abc import Callable
from typing import Final

from app.auth.access import caller
from app.current import request
from app.db import db
from app.events.feed import FeedPage
from app.limits.concurrency import release_slot
from app.limits.places import NoPlace, Places
from tenant_schemas.context import current_tenant

POLL_SECONDS: Final = 0.5
AT_ONCE_OF_TENANT: Final = 6
AT_ONCE_OF_CALLER: Final = 3
WAITING: Final = Places(24)


def wait_for_page(read: Callable[[int], FeedPage], after: int, seconds: float) -> tuple[FeedPage, bool]:
    """The page that `read` gives after a position, as soon as it has an event or the time is over; and whether there
    was a place to wait, if need be. Ends the session's db transaction and returns the request's slot before it waits.
    Raises what `read` raises.
    """
    page = read(after)
    if page.events or seconds <= 0:
        return page, True
    try:
        with WAITING.taken({current_tenant().id: AT_ONCE_OF_TENANT, caller().id: AT_ONCE_OF_CALLER}):
            db.session.commit()
            release_slot(request.environ)
            ends_at = time.monotonic() + seconds
            while not page.events and (left := ends_at - time.monotonic()) > 0:
                time.sleep(min(POLL_SECONDS, left))
                page = read(page.position)
    except NoPlace:
        return page, False
    return page, True
