"""Hands a tenant's events to the broker, in order of their positions.

The cursor moves by the events that the broker has confirmed, counted from the front: an event that the broker refused
stops the batch, and the next turn begins with it. Consumers get events again, never a hole.
"""

import time
from collections.abc import Callable
from threading import Lock
from typing import Final
from uuid import UUID

import structlog

from app.brokers.publisher import BrokerUnavailable, Message, Publisher
from app.events.feed import FeedEvent, event_json, read_events
from app.relay.cursors import move_cursor, take_cursor
from tenant_schemas.tenant import Tenant

log = structlog.get_logger(__name__)

SINK: Final = "broker"
BATCH: Final = 500
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0


class BrokerSink:
    """The broker as seen by one relay process. While the broker refuses, all tenants pause together: 1 s at first,
    twice as long after each further failure, at most 30 s. Thread-safe.
    """

    def __init__(self, publisher: Publisher, owner: UUID, *, now: Callable[[], float] = time.monotonic) -> None:
        self._publisher = publisher
        self._owner = owner
        self._now = now
        self._lock = Lock()
        self._pause_seconds = 0.0
        self._paused_until = 0.0

    @property
    def is_paused(self) -> bool:
        return self._now() < self._paused_until

    def publish_due(self, tenant: Tenant) -> bool:
        """Publish one batch of the bound tenant's events. True if there may be more. Commits; no db transaction is open
        while the broker is asked. Raises nothing for a broker that is away.
        """
        if self.is_paused:
            return False
        cursor = take_cursor(SINK, self._owner)
        if cursor is None:
            return False
        events = read_events(after=cursor.position, limit=BATCH)
        confirmed = self._publish(tenant, events)
        move_cursor(cursor, events[confirmed - 1].position if confirmed else cursor.position)
        return confirmed == BATCH

    def _publish(self, tenant: Tenant, events: list[FeedEvent]) -> int:
        if not events:
            return 0
        try:
            confirmed = self._publisher.publish([_message(tenant, event) for event in events])
        except BrokerUnavailable as error:
            self._pause(str(error))
            return 0
        if confirmed < len(events):
            self._pause(f"The broker did not take the event {events[confirmed].id}.")
        else:
            self._resume()
        return confirmed

    def _pause(self, reason: str) -> None:
        with self._lock:
            self._pause_seconds = min(LONGEST_PAUSE_SECONDS, 2 * self._pause_seconds or FIRST_PAUSE_SECONDS)
            self._paused_until = self._now() + self._pause_seconds
        log.warning("broker_refuses", reason=reason, pause_seconds=self._pause_seconds)

    def _resume(self) -> None:
        with self._lock:
            self._pause_seconds = self._paused_until = 0.0

    def close(self) -> None:
        self._publisher.close()


def _message(tenant: Tenant, event: FeedEvent) -> Message:
    return Message(
        id=event.id,
        type=event.type,
        routing_key=f"{tenant.id}.{event.type}",
        partition_key=str(event.wallet_id or tenant.id),
        body=event_json(event, "full"),
    )
