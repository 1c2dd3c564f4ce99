"""Hands a tenant's events to the broker, in order of their positions.

The cursor moves by the events that the broker has confirmed, counted from the front: an event that the broker refused
stops the batch, and the next turn begins with it. Consumers get some events again, and never a hole.
"""

from collections.abc import Callable
from contextlib import ExitStack
from threading import Lock, local
from typing import Final
from uuid import UUID

import structlog

from app.brokers.publisher import BrokerUnavailable, Message, Publisher
from app.events.feed import FeedEvent, event_json, read_page
from app.metrics.definitions import BROKER_CONFIRMS, BROKER_RETURNS, DELIVERED, FAILED, SINK_ATTEMPTS
from app.relay.cursors import move_cursor, take_cursor
from app.relay.pauses import Pauses
from app.tracing import delivery_span
from tenant_schemas.tenant import Tenant

log = structlog.get_logger(__name__)

SINK: Final = "broker"
BATCH: Final = 500
_ALL: Final = "all tenants"


class BrokerSink:
    """The broker as one relay process sees it, with a connection for each of its threads.

    While the broker can't be reached, all tenants pause. While it refuses an event, for instance because no queue is
    bound for it, only the event's tenant pauses. Thread-safe.
    """

    def __init__(self, connect: Callable[[], Publisher], owner: UUID, pauses: Pauses | None = None) -> None:
        self._connect = connect
        self._owner = owner
        self._pauses = pauses or Pauses()
        self._own = local()
        self._publishers: list[Publisher] = []
        self._lock = Lock()

    def publish_due(self, tenant: Tenant) -> bool:
        """Publish one batch of the bound tenant's events. True if there may be more. Commits; no db transaction is open
        while the broker is asked. Raises nothing for a broker that is away.
        """
        if self._pauses.is_paused(_ALL) or self._pauses.is_paused(tenant.id):
            return False
        cursor = take_cursor(SINK, self._owner)
        if cursor is None:
            return False
        page = read_page(cursor.position, BATCH, feed_id=cursor.feed_id)
        confirmed = self._publish(tenant, page.events) if page.events else 0
        move_cursor(cursor, page.events[confirmed - 1].position if confirmed else cursor.position)
        return confirmed == BATCH

    def _publish(self, tenant: Tenant, events: list[FeedEvent]) -> int:
        try:
            with ExitStack() as spans:
                for event in events:
                    spans.enter_context(delivery_span(SINK, event.body.get("traceparent")))
                confirmed = self._publisher().publish([message_of(tenant, event) for event in events])
        except BrokerUnavailable as error:
            SINK_ATTEMPTS.labels(SINK, FAILED).inc()
            log.warning("broker_unavailable", reason=str(error), pause_seconds=self._pauses.add(_ALL))
            return 0
        self._pauses.clear(_ALL)
        BROKER_CONFIRMS.inc(confirmed)
        SINK_ATTEMPTS.labels(SINK, DELIVERED).inc(confirmed)
        if confirmed == len(events):
            self._pauses.clear(tenant.id)
        else:
            BROKER_RETURNS.inc()
            SINK_ATTEMPTS.labels(SINK, FAILED).inc()
            event, seconds = events[confirmed], self._pauses.add(tenant.id)
            log.warning("broker_refuses_event", tenant=tenant.slug, event_id=str(event.id), pause_seconds=seconds)
        return confirmed

    def _publisher(self) -> Publisher:
        """This thread's publisher."""
        publisher: Publisher | None = getattr(self._own, "publisher", None)
        if publisher is None:
            publisher = self._own.publisher = self._connect()
            with self._lock:
                self._publishers.append(publisher)
        return publisher

    def close(self) -> None:
        """Close all connections. No thread may publish any more."""
        for publisher in self._publishers:
            publisher.close()


def message_of(tenant: Tenant, event: FeedEvent) -> Message:
    """The event as the broker gets it, with the full payload."""
    return Message(
        id=str(event.id),
        type=event.type,
        routing_key=f"{tenant.id}.{event.type}",
        partition_key=str(event.wallet_id or tenant.id),
        body=event_json(event, "full"),
    )
