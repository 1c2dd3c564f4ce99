"""The position up to which a tenant's events were handed to the broker, and the lease of the process that does so.

The cursor is a row in the tenant's schema. It starts at the oldest event that the feed still has. A lease is a time in
that row: no lock is held while the broker is asked. If a process dies, its lease ends by itself, and the next one sends
again what was sent and not recorded: at least once.
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

import sqlalchemy as sa

from app.db import db

LEASE_SECONDS: Final = 30.0
"""More than the publication of one batch takes. If it takes longer, another process may send the same events again."""

# A restore gives the feed a new id, and its cursor, which is restored too, goes on where the backup had it.
_TAKE: Final = sa.text("""
    INSERT INTO event_cursors AS known (sink, feed_id, position, lease_by, lease_until)
    SELECT :sink, head.feed_id, head.trimmed_to, :owner, clock_timestamp() + make_interval(secs => :seconds)
    FROM events_head head
    ON CONFLICT (sink) DO UPDATE
    SET feed_id = excluded.feed_id, position = greatest(known.position, excluded.position),
        lease_by = excluded.lease_by, lease_until = excluded.lease_until
    WHERE known.lease_until <= clock_timestamp() OR known.lease_by = excluded.lease_by
    RETURNING feed_id, position""")
_MOVE: Final = sa.text("""
    UPDATE event_cursors SET position = :position, lease_until = clock_timestamp()
    WHERE sink = :sink AND lease_by = :owner AND feed_id = :feed_id AND position <= :position""")


@dataclass(frozen=True, slots=True)
class Cursor:
    """A leased cursor."""

    sink: str
    owner: UUID
    feed_id: UUID
    position: int


def take_cursor(sink: str, owner: UUID, seconds: float = LEASE_SECONDS) -> Cursor | None:
    """Lease the sink's cursor of the bound tenant, which is created if it is missing; None if another process has it.
    Commits.
    """
    row = db.session.execute(_TAKE, {"sink": sink, "owner": owner, "seconds": seconds}).one_or_none()
    db.session.commit()
    return Cursor(sink, owner, row.feed_id, row.position) if row else None


def move_cursor(cursor: Cursor, position: int) -> bool:
    """Record that the sink has all events up to `position`, and end the lease. False if the lease was lost meanwhile:
    then the process that has it sends these events again. Commits.
    """
    found = {"sink": cursor.sink, "owner": cursor.owner, "feed_id": cursor.feed_id, "position": position}
    moved = db.session.execute(_MOVE, found)
    db.session.commit()
    return bool(moved.rowcount)  # type: ignore[attr-defined]
