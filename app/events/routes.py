"""GET /api/admin/events: the feed, to be pulled; and what is older than the feed keeps."""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from app.api.blueprint import Blueprint
from app.api.headers import gives_header
from app.api.pagination import Found, Page, PageRequest, Position, page_of
from app.api.refusals import refuses
from app.auth.access import Access, access
from app.events.cursors import cursor_of, read_cursor
from app.events.errors import FeedChanged, FeedTrimmed
from app.events.feed import FeedPage, feed_head, read_page, stamp_events
from app.events.long_poll import wait_for_page
from app.events.replay import ReplayPlace, read_replay
from app.events.schemas import EventPageSchema, EventQuery, ReplayedEventPageSchema, ReplayQuery

_ALWAYS: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FOR_EVER: Final = datetime(9999, 12, 31, tzinfo=UTC)  # A movement may be ahead of the clock, if that was set back.
RETRY_AFTER: Final = {"Retry-After": "1"}

blueprint = Blueprint("events", __name__, url_prefix="/api/admin", description="What happened, in one feed.")


@blueprint.get("/events")
@access(Access.READER)
@blueprint.arguments(EventQuery, location="query")
@blueprint.response(200, EventPageSchema)
@gives_header("Retry-After", "Seconds until the next request, if too many wait for this one to.", always=False)
@refuses(FeedChanged, FeedTrimmed)
def list_events(query: dict[str, Any]) -> tuple[Page[dict[str, Any]], int, dict[str, str]]:
    """What happened to the tenant's wallets, holds and orders, oldest first. Keep `nextCursor` and send it as `after`:
    it leads on for ever. With `wait` an answer without events comes when so many seconds are over, or at once with
    `Retry-After` if too many requests wait already.
    """
    feed_id, after = _start(query)

    def read(position: int) -> FeedPage:
        stamp_events()  # So that the feed goes on where no relay runs.
        return read_page(position, query["limit"], query.get("types"), _wallets(query), feed_id=feed_id)

    page, had_place = wait_for_page(read, after, query["wait"])
    shown = Page([event.body for event in page.events], cursor_of(page.feed_id, page.position))
    return shown, 200, {} if had_place else RETRY_AFTER


@blueprint.get("/events/replay")
@access(Access.READER)
@blueprint.arguments(ReplayQuery, location="query")
@blueprint.response(200, ReplayedEventPageSchema)
def list_replayed_events(query: dict[str, Any]) -> Page[dict[str, Any]]:
    """The movements of a period as events, oldest first, also those that the feed keeps no longer. They have the ids
    and the data of the feed's events, and no `sequence`. A page without items is not the last if it has a `nextCursor`.
    To have all from a moment on, read these to the end, then the feed from its beginning, and take each `id` once.
    """
    start, end = query.get("start", _ALWAYS), query.get("end", _FOR_EVER)

    def fetch(asked: PageRequest) -> Found[dict[str, Any]]:
        place = _place(asked.after) if asked.after else ReplayPlace.before(start)
        page = read_replay(place, end, limit=asked.limit, types=query.get("types"))
        position = [page.place.at, page.place.wallet_id, page.place.seq] if page.place else None
        return Found([event.body for event in page.events], position)

    return page_of(query, fetch)


def _place(position: Position) -> ReplayPlace:
    return ReplayPlace(datetime.fromisoformat(position[0]), UUID(position[1]), position[2])


def _start(query: dict[str, Any]) -> tuple[UUID, int]:
    """The feed and the position to start after. Raises Invalid for what is no cursor."""
    if "after" in query:
        return read_cursor(query["after"])
    head = feed_head()
    return head.feed_id, head.trimmed_to


def _wallets(query: dict[str, Any]) -> list[UUID] | None:
    return [query["wallet_id"]] if "wallet_id" in query else None
