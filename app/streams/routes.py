"""Server-sent events: of the whole tenant for its staff, and of a member's own wallets.

The answer has no end of its own. It ends with the access token, the session, the membership or the tenant, and when
the process stops; an `EventSource` then connects again and goes on where it was (`Last-Event-ID`).
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack
from socket import MSG_DONTWAIT, socket
from time import monotonic
from typing import Any, Final, TypeVar
from uuid import UUID

from flask import Flask, Response

from app.api.blueprint import Blueprint
from app.api.headers import wants_header
from app.api.refusals import View, refuses
from app.auth.access import Access, access, caller
from app.auth.standing_check import seconds_of_token, standing_check
from app.config import Settings
from app.current import current_app, current_application, request
from app.db import db
from app.errors import DatabaseUnavailable
from app.events.cursors import read_cursor
from app.events.errors import FeedChanged, FeedTrimmed
from app.events.feed import feed_head, read_events, read_page
from app.limits.concurrency import release_slot
from app.streams import sse
from app.streams.places import StreamPlaces, TooManyStreams
from app.streams.schemas import OwnStreamQuery, StreamQuery
from app.streams.stream import PAGE, Listener, stream
from app.streams.watch import FeedWatch, FeedWatches, Head, WatchEnded
from app.wallets.service import own_wallet_ids
from tenant_schemas.context import bound, current_tenant
from tenant_schemas.flask import connections
from tenant_schemas.registry import get_tenant_by_id
from tenant_schemas.tenant import Tenant

EXTENSION: Final = "event_streams"
# A little less than STREAM_SECONDS, after which the answer would be cut off.
PART_OF_STREAM_SECONDS: Final = 0.9
# What a client sends during a stream is discarded, so much at a time; a client that sends on and on is looked at later.
MOST_DISCARDED: Final = 65_536
LOOKS_AT_CLIENT: Final = 16

Result = TypeVar("Result")

blueprint = Blueprint("streams", __name__, url_prefix="/api", description="Events as they happen (server-sent events).")


class EventStreams:
    """The streams of this process."""

    def __init__(self, settings: Settings) -> None:
        self.places = StreamPlaces(settings.event_streams)
        self.watches = FeedWatches()
        self.most_seconds = PART_OF_STREAM_SECONDS * settings.stream_seconds


def init_app(app: Flask, settings: Settings) -> None:
    app.extensions[EXTENSION] = EventStreams(settings)


def _streams(view: View) -> View:
    """Describe in OpenAPI that a view answers with server-sent events."""
    schema = {"type": "string", "contentMediaType": sse.MEDIA_TYPE}
    described = blueprint.alt_response(200, schema=schema, content_type=sse.MEDIA_TYPE)(view)
    last = "The id of the last event that the client has. A browser sends it when it connects again."
    return refuses(TooManyStreams)(wants_header("Last-Event-ID", last, required=False, maxLength=60)(described))


@blueprint.get("/admin/events/stream")
@access(Access.READER)
@blueprint.arguments(StreamQuery, location="query")
@_streams
def stream_events(query: dict[str, Any]) -> Response:
    """The tenant's events as they happen, from `Last-Event-ID` or `after` on, or else from now on. An event `resync`
    says that some are missing: the tenant was restored, or they are older than the feed keeps. Then read anew what you
    show.
    """
    wallet_id = query.get("wallet_id")
    return _answer(Access.READER, query, None if wallet_id is None else [wallet_id])


@blueprint.get("/wallet/events")
@access(Access.MEMBER)
@blueprint.arguments(OwnStreamQuery, location="query")
@_streams
def stream_own_events(query: dict[str, Any]) -> Response:
    """The events of my wallets in the tenant of this request, in all its currencies, as they happen."""
    return _answer(Access.MEMBER, query, own_wallet_ids(caller().user_id))


def _answer(who: Access, query: dict[str, Any], wallet_ids: Collection[UUID] | None) -> Response:
    own: EventStreams = current_app.extensions[EXTENSION]
    tenant, app, types = current_tenant(), current_application(), query.get("types")
    cursor, check = _given_cursor(query), standing_check(who)
    with ExitStack() as stack:
        place = (tenant.id, caller().id, "staff" if wallet_ids is None else "member")
        own.places.take(*place)
        stack.callback(own.places.give_back, *place)
        watching = own.watches.watching(tenant, _in(app, tenant, _head), _in(app, tenant, read_events))
        watch, end = _entered(stack, watching)
        position, gap = _start(end, cursor)
        listener = Listener(
            types,
            wallet_ids,
            read_page=_in(app, tenant, lambda after: read_page(after, PAGE, types, wallet_ids)),
            may_listen=_in(app, tenant, check),
            has_gone=_client_check(),
            ends_at=monotonic() + min(own.most_seconds, seconds_of_token()),
        )
        db.session.commit()
        release_slot(request.environ)
        body = _Body(stream(watch, position, listener, gap=gap), stack.pop_all())
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(body, content_type=sse.MEDIA_TYPE, headers=headers)


def _entered(stack: ExitStack, watching: AbstractContextManager[tuple[FeedWatch, int]]) -> tuple[FeedWatch, int]:
    """Raises DatabaseUnavailable if the tenant was changed since the request came."""
    try:
        return stack.enter_context(watching)
    except WatchEnded:
        raise DatabaseUnavailable("The tenant was changed just now; connect again.") from None


def _given_cursor(query: dict[str, Any]) -> tuple[UUID, int] | None:
    """Raises Invalid."""
    last = request.headers.get("Last-Event-ID")
    if last:
        return read_cursor(last, "Last-Event-ID", "header")
    return read_cursor(query["after"]) if "after" in query else None


def _start(end: int, cursor: tuple[UUID, int] | None) -> tuple[int, str | None]:
    """The position to start after, and the code of what keeps the stream from starting where the cursor is."""
    if cursor is None:
        return end, None
    feed_id, position = cursor
    try:
        read_page(position, 1, feed_id=feed_id)
    except (FeedChanged, FeedTrimmed) as refusal:
        return end, refusal.code
    return position, None


def _client_check() -> Callable[[], bool]:
    """A function that tells whether the client has closed the connection. gunicorn notices it only when it writes. It
    discards what the client sends meanwhile: a stream is no place for a further request, and the end stands behind it.
    """
    connection: socket | None = request.environ.get("gunicorn.socket")

    def has_gone() -> bool:
        if connection is None:
            return False
        try:
            for _ in range(LOOKS_AT_CLIENT):
                if connection.recv(MOST_DISCARDED, MSG_DONTWAIT) == b"":
                    return True
        except BlockingIOError:  # It is open, and has sent nothing more.
            return False
        except OSError:
            return True
        return False

    return has_gone


def _head() -> Head:
    """Raises WatchEnded if the tenant's registry row has changed: its connections are others now."""
    with connections().shared.begin() as connection:
        if get_tenant_by_id(connection, current_tenant().id) != current_tenant():
            raise WatchEnded
    head = feed_head()
    return Head(head.feed_id, head.position)


def _in(app: Flask, tenant: Tenant, act: Callable[..., Result]) -> Callable[..., Result]:
    """`act` with the tenant bound, in the application's context, in any thread."""

    def bound_act(*arguments: Any) -> Result:
        with app.app_context(), bound(tenant):
            return act(*arguments)

    return bound_act


class _Body:
    """The stream, and what it holds. WSGI servers always call `close`, also for a stream that was never read."""

    def __init__(self, pieces: Iterator[bytes], held: ExitStack) -> None:
        self._pieces = pieces
        self._held = held

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        self._held.close()
