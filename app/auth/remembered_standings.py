"""Remembers standings, so that a payment needs no question before the statement that proves its caller's standing.

A remembered standing decides nothing: it tells what to prove. Only callers who were let in are remembered.
"""

from typing import Final, NamedTuple
from uuid import UUID

from app.users.standing import Standing

MOST: Final = 10_000


class StandingKey(NamedTuple):
    """A caller's session, and the tenant as the request names it."""

    user_id: UUID
    session_id: UUID
    slug: str | None
    tenant_id: UUID | None


class RememberedStandings:
    """The standings that this process remembers. All are forgotten when there are too many."""

    def __init__(self) -> None:
        self._known: dict[StandingKey, Standing] = {}

    def get(self, key: StandingKey) -> Standing | None:
        return self._known.get(key)

    def remember(self, key: StandingKey, standing: Standing) -> None:
        if len(self._known) >= MOST:
            self._known.clear()
        self._known[key] = standing

    def forget(self, key: StandingKey) -> None:
        self._known.pop(key, None)
