"""Hands events of a period to the broker once more: movements that the feed has no more, from the ledger, and then
events of the feed. The relay's cursor stays where it is.
"""

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Final

from app.brokers.publisher import Publisher
from app.db import db
from app.events.feed import FeedEvent, read_page
from app.events.period import Period, find_period
from app.events.replay import ReplayPlace, read_replay
from app.relay.broker_sink import message_of
from tenant_schemas.tenant import Tenant

BATCH: Final = 500


class EventRefused(Exception):
    """The broker refused an event, for instance because no queue is bound for it. What came before it was published."""


def replay_to_broker(
    publisher: Publisher, tenant: Tenant, start: datetime, end: datetime, types: Collection[str] | None = None
) -> Iterator[FeedEvent]:
    """Publish what happened to the bound tenant at or after `start` and before `end`, of these types: movements without
    an event in the feed, oldest first, then the feed's events in their order. Yields each event that was confirmed.

    Ends the session's db transaction. Raises EventRefused, BrokerUnavailable, and FeedTrimmed if the feed was trimmed
    meanwhile; then replay again from the time of the last event.
    """
    period = find_period(start, end)
    db.session.commit()
    if period is None:
        return
    for batch in _batches(period, types):
        confirmed = publisher.publish([message_of(tenant, event) for event in batch])
        yield from batch[:confirmed]
        if confirmed < len(batch):
            raise EventRefused(f"The broker refused the event {batch[confirmed].id} of type {batch[confirmed].type}.")


def _batches(period: Period, types: Collection[str] | None) -> Iterator[list[FeedEvent]]:
    if period.ledger_from and period.ledger_until:
        place: ReplayPlace | None = ReplayPlace.before(period.ledger_from)
        while place:
            events, place = read_replay(place, period.ledger_until, limit=BATCH, types=types, is_beyond_feed=True)
            yield events
    position = period.position
    while position < period.until:
        page = read_page(position, BATCH, types)
        position = page.position
        yield [event for event in page.events if event.position <= period.until]
