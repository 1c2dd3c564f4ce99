"""Makes events of movements again from the ledger, for consumers that need more than the feed still has.

They have the same id, type, time and data as in the feed, and are marked: they have `replay` and no `sequence`. Events
of holds, orders and wallets are not made again.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from app.events.cloudevents import EventRow
from app.events.feed import MOVEMENT_COLUMNS, FeedEvent, feed_event, feed_head
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

_MOVEMENTS: Final = f"""
    SELECT NULL::bigint, t.id, 'wallet.' || t.type || '.posted.v1', t.wallet_id, NULL, NULL, NULL, t.created_at,
        w.user_id, w.currency, {MOVEMENT_COLUMNS}, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM wallet_transactions t
    JOIN wallets w ON w.id = t.wallet_id
    LEFT JOIN wallet_transactions p ON p.wallet_id = t.wallet_id AND p.seq = t.seq - 1
    WHERE t.created_at < %(end)s AND t.created_at >= %(start)s
        AND (t.created_at, t.wallet_id, t.seq) > (%(at)s, %(wallet_id)s, %(seq)s)
        AND (%(types)s::text[] IS NULL OR 'wallet.' || t.type || '.posted.v1' = ANY (%(types)s))
    ORDER BY t.created_at, t.wallet_id, t.seq LIMIT %(limit)s"""  # noqa: S608
_NO_WALLET: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class ReplayPlace:
    """The movement after which a replay goes on."""

    at: datetime
    wallet_id: UUID
    seq: int


def read_replay(
    start: datetime,
    end: datetime,
    *,
    after: ReplayPlace | None = None,
    limit: int = 500,
    types: Collection[str] | None = None,
) -> tuple[list[FeedEvent], ReplayPlace | None]:
    """The next events of movements at or after `start` and before `end`, oldest first and in each wallet's order; and
    the place to go on after, None at the end. The feed may not have them, or have them too.
    """
    place = after or ReplayPlace(start, _NO_WALLET, 0)
    parameters = {
        **{"start": start, "end": end, "at": place.at, "wallet_id": place.wallet_id, "seq": place.seq},
        **{"limit": limit, "types": None if types is None else list(types)},
    }
    found = connections().engine(current_tenant()).one_statement(_MOVEMENTS, parameters)
    rows = [EventRow(*row) for row in found]
    feed_id = feed_head().feed_id if rows else _NO_WALLET
    events = [feed_event(row, feed_id) for row in rows]
    if len(rows) < limit:
        return events, None
    last = rows[-1]
    return events, ReplayPlace(last.at, last.wallet_id or _NO_WALLET, last.seq)
