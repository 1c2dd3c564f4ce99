"""One relay process: it asks every second which tenants have something to do, and works on them in turn.

Any number of processes may run. What one tenant waits for delays no other: numbering and publishing have their own
threads, deliveries to webhooks have others, and each turn of a tenant is bounded.
"""

from threading import Event
from typing import Final

import psycopg
import structlog
from flask import Flask

from app.events.feed import stamp_events
from app.relay.broker_sink import BrokerSink
from app.relay.sweep import Sweep, Waiting
from app.relay.turns import Turns, Work
from app.webhooks.delivery import deliver_due
from tenant_schemas.context import bound
from tenant_schemas.tenant import Tenant

log = structlog.get_logger(__name__)

STAMP_BATCH: Final = 500
SWEEP_SECONDS: Final = 1.0
DRAIN_SECONDS: Final = 30.0


class Relay:
    """The threads of one process. `run` returns when its event is set and all turns are over."""

    def __init__(self, app: Flask, sweep: Sweep, broker: BrokerSink | None, *, threads: int, senders: int) -> None:
        self._sweep = sweep
        self._broker = broker
        self._events = Turns("relay-events", threads, _in_tenant(app, self._stamp_and_publish))
        self._deliveries = Turns("relay-deliveries", senders, _in_tenant(app, lambda _: deliver_due()))

    def run(self, stop: Event, seconds: float = SWEEP_SECONDS) -> None:
        """Sweep every `seconds` until `stop` is set; then let running turns end, for at most DRAIN_SECONDS."""
        self._events.start()
        self._deliveries.start()
        while not stop.is_set():
            self.sweep()
            stop.wait(seconds)
        for turns in (self._events, self._deliveries):
            if not turns.stop(DRAIN_SECONDS):
                log.warning("relay_not_drained", seconds=DRAIN_SECONDS)

    def sweep(self) -> None:
        """Offer each tenant that has something to do. If the server is away, the next sweep tries again."""
        try:
            found = self._sweep.waiting()
        except psycopg.Error as error:
            log.warning("relay_sweep_failed", error=f"{type(error).__name__}: {error}")
            return
        for waiting in found:
            self._offer(waiting)

    def _offer(self, waiting: Waiting) -> None:
        if waiting.has_events or (self._broker is not None and waiting.has_unpublished):
            self._events.offer(waiting.tenant)
        if waiting.has_deliveries:
            self._deliveries.offer(waiting.tenant)

    def _stamp_and_publish(self, tenant: Tenant) -> bool:
        stamped = stamp_events(STAMP_BATCH)
        has_more = self._broker is not None and self._broker.publish_due(tenant)
        return has_more or stamped == STAMP_BATCH


def _in_tenant(app: Flask, work: Work) -> Work:
    def bound_work(tenant: Tenant) -> bool:
        with app.app_context(), bound(tenant):
            return work(tenant)

    return bound_work
