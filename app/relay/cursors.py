"""The position up to which a tenant's events were handed to the broker, and the lease of the process that does so.

The cursor is a row in the tenant's schema. It starts at the oldest event that the feed still has. A lease is a time in
that row: no lock is held while the broker is asked. If a process dies, its lease ends by itself, and the next one sends
again what was sent and not recorded: at least once.
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

LEASE_SECONDS: Final = 30.0
"""More than the publication of one batch takes, unless the broker hangs. Then another process may send the same events
again, each wallet's in the same order."""

_TAKE: Final = "SELECT feed_id, position FROM event_cursor_take_v1(%s, %s, %s)"
_MOVE: Final = "SELECT event_cursor_move_v1(%s, %s, %s, %s)"


@dataclass(frozen=True, slots=True)
class Cursor:
    """A leased cursor."""

    sink: str
    owner: UUID
    feed_id: UUID
    position: int


def take_cursor(sink: str, owner: UUID, seconds: float = LEASE_SECONDS) -> Cursor | None:
    """Lease the sink's cursor of the bound tenant, which is made if it is missing; None if another process has it.
    Commits.
    """
    engine = connections().engine(current_tenant())
    rows = engine.one_statement(_TAKE, (sink, owner, seconds), retry=True)
    return Cursor(sink, owner, *rows[0]) if rows else None


def move_cursor(cursor: Cursor, position: int) -> None:
    """Record that the sink has all events up to `position`, also if another process has leased the cursor meanwhile.
    End the lease if it is still the caller's. If the feed was replaced by a restore, nothing is recorded. Commits.
    """
    engine = connections().engine(current_tenant())
    engine.one_statement(_MOVE, (cursor.sink, cursor.owner, cursor.feed_id, position), retry=True)
