"""The events of a period: positions of the feed, and before them the part of the ledger of which the feed has none."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from app.db import db

# A feed that was never trimmed has everything since it was started. Of a trimmed one no moment tells which movements it
# still has: a movement is never younger than the wallet's last one, so after the clock was set back it stays ahead. So
# each movement of the period is asked for its event.
_PERIOD: Final = sa.text("""
    WITH known AS (
        SELECT h.position, h.trimmed_to,
            CASE WHEN h.trimmed_to = 0 THEN least(:end, h.started_at) ELSE :end END AS ledger_until
        FROM events_head h
    )
    SELECT k.trimmed_to, k.ledger_until,
        (SELECT min(e.position) FROM events e WHERE e.position IS NOT NULL AND e.at >= :start) AS first,
        (SELECT max(e.position) FROM events e WHERE e.position IS NOT NULL AND e.at < :end) AS last,
        EXISTS (SELECT FROM wallet_transactions t
            WHERE t.created_at >= :start AND t.created_at < k.ledger_until) AS has_movements
    FROM known k""")


@dataclass(frozen=True, slots=True)
class Period:
    """Movements from `ledger_from` before `ledger_until`, those of which the feed has no event, if there may be some;
    then the events of the feed after `position` up to `until`.
    """

    position: int
    until: int
    ledger_from: datetime | None = None
    ledger_until: datetime | None = None


def find_period(start: datetime, end: datetime) -> Period | None:
    """What happened at or after `start` and before `end`; None if that is nothing. Events without a number are not in
    it: they are new to everybody.
    """
    found = db.session.execute(_PERIOD, {"start": start, "end": end}).one()
    has_events = None not in (found.first, found.last) and found.first <= found.last
    if not has_events and not found.has_movements:
        return None
    position, until = (found.first - 1, found.last) if has_events else (found.trimmed_to, found.trimmed_to)
    if not found.has_movements:
        return Period(position, until)
    return Period(position, until, start, found.ledger_until)
