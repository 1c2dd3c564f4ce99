"""One relay process: it asks every second which tenants have something to do, and works on them in turn.

Any number of processes may run. Numbering, publishing and deliveries to webhooks have threads of their own, because all
else waits for the numbers: a broker or an endpoint that hangs must not delay them. Each turn of a tenant is bounded.
"""

from collections.abc import Callable, Sequence
from threading import Event
from time import monotonic
from typing import Final

import psycopg
import structlog
from flask import Flask

from app.events.feed import stamp_events
from app.metrics.definitions import (
    EVENTS_STAMPED,
    EVENTS_SWEEP_SECONDS,
    EVENTS_UNSTAMPED,
    EVENTS_UNSTAMPED_AGE,
    SINK_LAG,
)
from app.relay.broker_sink import BrokerSink
from app.relay.deliveries import Deliveries
from app.relay.sweep import Sweep, Waiting
from app.relay.turns import Turns
from app.relay.upkeep import Upkeep
from app.relay.waits import Waits
from tenant_schemas.context import bound
from tenant_schemas.tenant import Tenant

log = structlog.get_logger(__name__)

STAMP_BATCH: Final = 500
SWEEP_SECONDS: Final = 1.0
DRAIN_SECONDS: Final = 30.0
UPKEEP_SECONDS: Final = 3600.0


class Relay:
    """The threads of one process: `threads` that number, as many that publish if there is a broker, as many that look
    for endpoints that are due, `senders` that deliver. `run` returns when its event is set and all turns are over.
    """

    def __init__(
        self, app: Flask, sweep: Sweep, broker: BrokerSink | None, upkeep: Upkeep, *, threads: int, senders: int
    ) -> None:
        self._sweep = sweep
        self._upkeep = upkeep
        self._numbering = Turns("relay-numbering", threads, _in_tenant(app, self._number))
        self._publishing = Turns("relay-publishing", threads, _in_tenant(app, broker.publish_due)) if broker else None
        self._deliveries = Deliveries(app, senders, upkeep.note_delivery)
        self._finding = Turns("relay-endpoints", threads, _in_tenant(app, self._deliveries.offer_due))
        self._tending = Turns("relay-upkeep", 1, _in_tenant(app, upkeep.tend))
        self._counting = Turns("relay-counting", 1, _in_tenant(app, self._count))
        self._unstamped, self._unpublished, self._undelivered = Waits(), Waits(), Waits()
        self._next_upkeep = 0.0

    def run(self, stop: Event, seconds: float = SWEEP_SECONDS) -> None:
        """Sweep every `seconds` until `stop` is set; then let running turns end, for at most DRAIN_SECONDS."""
        known = (self._numbering, self._publishing, self._finding, self._deliveries.turns)
        all_turns = [turns for turns in (*known, self._tending, self._counting) if turns]
        for turns in all_turns:
            turns.start()
        while not stop.is_set():
            self.sweep()
            stop.wait(seconds)
        deadline = monotonic() + DRAIN_SECONDS
        for turns in all_turns:
            if not turns.stop(max(0.0, deadline - monotonic())):
                log.warning("relay_not_drained", seconds=DRAIN_SECONDS)

    def sweep(self) -> None:
        """Offer each tenant that has something to do. If the server is away, the next sweep tries again."""
        started = monotonic()
        try:
            if started >= self._next_upkeep:
                self._tend(self._sweep.tenants())
                self._next_upkeep = started + UPKEEP_SECONDS
            found = self._sweep.waiting()
        except psycopg.Error as error:
            log.warning("relay_sweep_failed", error=f"{type(error).__name__}: {error}")
            return
        for waiting in found:
            self._offer(waiting)
        for tenant in self._upkeep.take_uncounted():
            self._counting.offer(tenant)
        EVENTS_SWEEP_SECONDS.observe(monotonic() - started)
        self._measure(found)

    def _tend(self, tenants: Sequence[Tenant]) -> None:
        self._upkeep.forget_all_but(tenant.id for tenant in tenants)
        self._deliveries.forget_all_but({tenant.id for tenant in tenants})
        for tenant in tenants:
            self._tending.offer(tenant)

    def _offer(self, waiting: Waiting) -> None:
        if waiting.has_events:
            self._numbering.offer(waiting.tenant)
        if waiting.has_unpublished and self._publishing:
            self._publishing.offer(waiting.tenant)
        if waiting.has_deliveries:
            self._finding.offer(waiting.tenant)

    def _measure(self, found: list[Waiting]) -> None:
        self._unstamped.see(each.tenant.id for each in found if each.has_events)
        self._unpublished.see(each.tenant.id for each in found if each.has_unpublished and self._publishing)
        self._undelivered.see(each.tenant.id for each in found if each.has_deliveries)
        EVENTS_UNSTAMPED.set(self._unstamped.count)
        EVENTS_UNSTAMPED_AGE.set(self._unstamped.longest_seconds)
        SINK_LAG.labels("broker").set(self._unpublished.longest_seconds)
        SINK_LAG.labels("webhook").set(self._undelivered.longest_seconds)

    def _count(self, tenant: Tenant) -> bool:
        self._upkeep.count_failures(tenant)
        return False

    def _number(self, tenant: Tenant) -> bool:
        stamped = stamp_events(STAMP_BATCH)
        EVENTS_STAMPED.inc(stamped)
        if stamped and self._publishing:
            self._publishing.offer(tenant)
        return stamped == STAMP_BATCH


def _in_tenant(app: Flask, work: Callable[[Tenant], bool]) -> Callable[[Tenant], bool]:
    def bound_work(tenant: Tenant) -> bool:
        with app.app_context(), bound(tenant):
            return work(tenant)

    return bound_work
