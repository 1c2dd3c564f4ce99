"""The feed of the bound tenant: numbers new events, and reads them by position.

Positions have no gaps, and grow within a wallet as its events happened. A reader keeps the id of the feed and the
position of the last event that it has dealt with, and asks for those after it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import UUID

import orjson

from app.events.cloudevents import EventRow, cloud_event, thin
from app.events.errors import FeedChanged, FeedTrimmed
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

Payload = Literal["full", "thin"]

# With types, that many events are looked at and no more: those asked for may be rare, or not there at all.
MAX_SCANNED: Final = 10_000
MAX_POSITION: Final = 2**63 - 1

_HEAD_COLUMNS: Final = 3

_STAMP: Final = "SELECT events_stamp_v1(%s)"
_HEAD: Final = "SELECT feed_id, position, trimmed_to FROM events_head"
# Of the movement t, of p before it, and of the wallet w.
MOVEMENT_COLUMNS: Final = """
    t.seq, t.amount_minor, t.balance_after_minor, t.order_id, t.refund_of, t.hold_id, t.admin_id, t.description,
    t.reference, t.reason, t.created_at, t.hash,
    CASE WHEN t.seq = 1 THEN wallet_genesis_hash_v1(w.id, w.user_id, w.currency) ELSE p.hash END"""

# One statement, so that the head belongs to the events: whatever was trimmed is seen to be.
_READ: Final = f"""
    WITH page AS MATERIALIZED (
        SELECT e.position, e.id, e.type, e.wallet_id, e.subject_id, e.data, e.traceparent, e.at
        FROM events e
        WHERE e.position > %(after)s AND e.position <= %(last)s
            AND (%(types)s::text[] IS NULL OR e.type = ANY (%(types)s))
            AND (%(wallet_ids)s::uuid[] IS NULL OR e.wallet_id = ANY (%(wallet_ids)s))
        ORDER BY e.position LIMIT %(limit)s
    )
    SELECT f.feed_id, f.position, f.trimmed_to, e.*, w.user_id, w.currency,
        {MOVEMENT_COLUMNS},
        h.amount_minor, h.order_id, h.description, h.expires_at,
        o.total_minor, o.payment_id, o.refund_id
    FROM events_head f
    LEFT JOIN page e ON true
    LEFT JOIN wallets w ON w.id = e.wallet_id
    LEFT JOIN wallet_transactions t ON t.id = e.id
    LEFT JOIN wallet_transactions p ON p.wallet_id = t.wallet_id AND p.seq = t.seq - 1
    LEFT JOIN holds h ON h.id = e.subject_id
    LEFT JOIN orders o ON o.id = e.subject_id
    ORDER BY e.position"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """An event of the feed. `body` is the whole CloudEvent with the full payload. One that was made again from the
    ledger has the position 0, which no other has.
    """

    id: UUID
    position: int
    type: str
    wallet_id: UUID | None
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class FeedHead:
    """The end of the feed. Events up to `trimmed_to` are deleted; of another `feed_id` it is another feed."""

    feed_id: UUID
    position: int
    trimmed_to: int


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Events of the feed, and the position to go on after: that of the last event which was looked at."""

    feed_id: UUID
    events: list[FeedEvent]
    position: int


def stamp_events(max_events: int = 500) -> int:
    """Number committed events that have no position yet, and return how many. Locks the feed's head; commits."""
    ((stamped,),) = connections().engine(current_tenant()).one_statement(_STAMP, (max_events,), retry=True)
    return int(stamped)


def feed_head() -> FeedHead:
    """The end of the bound tenant's feed."""
    (row,) = connections().engine(current_tenant()).one_statement(_HEAD, ())
    return FeedHead(*row)


def read_events(
    after: int,
    limit: int,
    types: Collection[str] | None = None,
    wallet_ids: Collection[UUID] | None = None,
) -> list[FeedEvent]:
    """The next numbered events after a position, at most `limit`, of these types and wallets. Raises FeedTrimmed.

    With types, an empty list does not mean that no such event follows: use `read_page`.
    """
    return read_page(after, limit, types, wallet_ids).events


def read_page(
    after: int,
    limit: int,
    types: Collection[str] | None = None,
    wallet_ids: Collection[UUID] | None = None,
    *,
    feed_id: UUID | None = None,
) -> FeedPage:
    """`read_events` with the position to go on after. `feed_id` is that of the position, if it is known. Raises
    FeedTrimmed, and FeedChanged for a position of another feed or beyond the end of this one.
    """
    last = MAX_POSITION if types is None else after + MAX_SCANNED
    parameters = {
        "after": after,
        "last": last,
        "limit": limit,
        "types": None if types is None else list(types),
        "wallet_ids": None if wallet_ids is None else list(wallet_ids),
    }
    rows = connections().engine(current_tenant()).one_statement(_READ, parameters)
    head = FeedHead(*rows[0][:_HEAD_COLUMNS])
    _check_position(head, after, feed_id)
    found = (EventRow(*row[_HEAD_COLUMNS:]) for row in rows if row[_HEAD_COLUMNS] is not None)
    events = [feed_event(row, head.feed_id) for row in found]
    return FeedPage(head.feed_id, events, events[-1].position if len(events) == limit else min(last, head.position))


def event_json(event: FeedEvent, payload: Payload) -> bytes:
    """The exact bytes of the event, as they are sent and signed."""
    return orjson.dumps(event.body if payload == "full" else thin(event.body))


def _check_position(head: FeedHead, after: int, feed_id: UUID | None) -> None:
    if (feed_id is not None and feed_id != head.feed_id) or after > head.position:
        raise FeedChanged(
            "The position is of another feed: the tenant was restored since.", {"feedId": str(head.feed_id)}
        )
    if after < head.trimmed_to:
        raise FeedTrimmed(
            f"The feed has the events after position {head.trimmed_to} only; the replay has older movements.",
            {"trimmedTo": head.trimmed_to},
        )


def feed_event(row: EventRow, feed_id: UUID) -> FeedEvent:
    """The event of a row, of the bound tenant."""
    body = cloud_event(row, tenant_id=current_tenant().id, feed_id=feed_id)
    return FeedEvent(row.id, row.position or 0, row.type, row.wallet_id, body)
