"""Makes events of movements again from the ledger, for consumers that need more than the feed still has.

They have the same id, type, time and data as in the feed, and are marked: they have `replay` and no `sequence`. Events
of holds, orders and wallets are not made again.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from app.events.cloudevents import EventRow
from app.events.feed import MAX_SCANNED, MOVEMENT_COLUMNS, FeedEvent, feed_event
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

# The last place is asked for only if the page is not full: then all scanned rows were looked at.
_MOVEMENTS: Final = f"""
    WITH scanned AS MATERIALIZED (
        SELECT t.id, t.created_at, t.wallet_id, t.seq, 'wallet.' || t.type || '.posted.v1' AS type
        FROM wallet_transactions t
        WHERE t.created_at < %(end)s AND t.created_at >= %(at)s
            AND (t.created_at, t.wallet_id, t.seq) > (%(at)s, %(wallet_id)s, %(seq)s)
        ORDER BY t.created_at, t.wallet_id, t.seq LIMIT %(scanned)s
    ), page AS MATERIALIZED (
        SELECT s.* FROM scanned s
        WHERE (%(types)s::text[] IS NULL OR s.type = ANY (%(types)s))
            AND (NOT %(is_beyond_feed)s OR NOT EXISTS (SELECT FROM events e WHERE e.id = s.id))
        LIMIT %(limit)s
    )
    SELECT f.feed_id, z.scanned, z.created_at, z.wallet_id, z.seq,
        NULL::bigint, t.id, m.type, t.wallet_id, NULL, NULL, NULL, t.created_at, w.user_id, w.currency,
        {MOVEMENT_COLUMNS}, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM events_head f
    LEFT JOIN (
        SELECT count(*) OVER () AS scanned, s.created_at, s.wallet_id, s.seq FROM scanned s
        WHERE (SELECT count(*) FROM page) < %(limit)s
        ORDER BY s.created_at DESC, s.wallet_id DESC, s.seq DESC LIMIT 1
    ) z ON true
    LEFT JOIN page m ON true
    LEFT JOIN wallet_transactions t ON t.id = m.id
    LEFT JOIN wallets w ON w.id = t.wallet_id
    LEFT JOIN wallet_transactions p ON p.wallet_id = t.wallet_id AND p.seq = t.seq - 1
    ORDER BY m.created_at, m.wallet_id, m.seq"""  # noqa: S608
_NO_WALLET: Final = UUID(int=0)
_HEAD_COLUMNS: Final = 5


@dataclass(frozen=True, slots=True)
class ReplayPlace:
    """The movement after which a replay goes on."""

    at: datetime
    wallet_id: UUID
    seq: int

    @classmethod
    def before(cls, moment: datetime) -> "ReplayPlace":
        """The place before all movements of this moment or later."""
        return cls(moment, _NO_WALLET, 0)

    @classmethod
    def of(cls, event: FeedEvent) -> "ReplayPlace":
        """The place of a movement's event."""
        data = event.body["data"]
        return cls(datetime.fromisoformat(event.body["time"]), UUID(data["walletId"]), data["seq"])


class ReplayPage(NamedTuple):
    """Events, and the place to go on after, None at the end."""

    events: list[FeedEvent]
    place: ReplayPlace | None


def read_replay(
    place: ReplayPlace,
    end: datetime,
    *,
    limit: int = 500,
    types: Collection[str] | None = None,
    is_beyond_feed: bool = False,
) -> ReplayPage:
    """The next events of movements after a place and before `end`, oldest first and in each wallet's order. The feed
    may have them too; with `is_beyond_feed` those are left out.

    With types, or beyond the feed, an empty page need not be the last: MAX_SCANNED movements are looked at.
    """
    scanned = limit if types is None and not is_beyond_feed else max(limit, MAX_SCANNED)
    parameters = {
        **{"end": end, "at": place.at, "wallet_id": place.wallet_id, "seq": place.seq},
        **{"limit": limit, "scanned": scanned, "types": None if types is None else list(types)},
        "is_beyond_feed": is_beyond_feed,
    }
    rows = connections().engine(current_tenant()).one_statement(_MOVEMENTS, parameters)
    feed_id, count, *last = rows[0][:_HEAD_COLUMNS]
    found = (EventRow(*row[_HEAD_COLUMNS:]) for row in rows)
    events = [feed_event(row, feed_id) for row in found if row.id is not None]
    if len(events) == limit:
        return ReplayPage(events, ReplayPlace.of(events[-1]))
    return ReplayPage(events, ReplayPlace(*last) if count == scanned else None)
