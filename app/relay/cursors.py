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
"""More than the publication of one batch takes, unless the broker hangs. Then another process may send the same events
again, each wallet's in the same order."""

# A restore gives the feed a new id, and its cursor, which is restored too, goes on where the backup had it.
_TAKE: Final = sa.text("""
    INSERT INTO event_cursors AS known (sink, feed_id, position, lease_by, lease_until)
    SELECT :sink, head.feed_id, head.trimmed_to, :owner, clock_timestamp() + make_interval(secs => :seconds)
    FROM events_head head
    ON CONFLICT (sink) DO UPDATE
    SET feed_id = excluded.feed_id, position = greatest(known.position, excluded.position),
        lease_by = excluded.lease_by, lease_until = excluded.lease_until
    WHERE known.lease_until <= clock_timestamp() OR known.lease_by = excluded.lease_by
        -- The server's clock was set back since.
        OR known.lease_until > clock_timestamp() + make_interval(secs => :longest)
    RETURNING feed_id, position""")
# What the broker has confirmed counts for whoever has the lease now. Otherwise two processes with a slow broker would
# take the lease from each other for ever, and none could move the cursor.
_MOVE: Final = sa.text("""
    UPDATE event_cursors SET position = greatest(position, :position),
        lease_until = CASE WHEN lease_by = :owner THEN clock_timestamp() ELSE lease_until END
    WHERE sink = :sink AND feed_id = :feed_id""")


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
    parameters = {"sink": sink, "owner": owner, "seconds": seconds, "longest": max(seconds, LEASE_SECONDS)}
    row = db.session.execute(_TAKE, parameters).one_or_none()
    db.session.commit()
    return Cursor(sink, owner, row.feed_id, row.position) if row else None


def move_cursor(cursor: Cursor, position: int) -> None:
    """Record that the sink has all events up to `position`, also if another process has leased the cursor meanwhile.
    End the lease if it is still the caller's. In a feed that was replaced by a restore nothing is recorded. Commits.
    """
    found = {"sink": cursor.sink, "owner": cursor.owner, "feed_id": cursor.feed_id, "position": position}
    db.session.execute(_MOVE, found)
    db.session.commit()
