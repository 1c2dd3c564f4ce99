"""What each tenant needs once an hour: old events are deleted, and failures of its webhooks are counted. After a
delivery they are counted again, but not more than once a minute: a tenant may have a million open lanes.
"""

import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from threading import Lock
from typing import Final, NamedTuple
from uuid import UUID

from app.events.retention import MAX_TRIMMED, trim_events
from app.metrics.definitions import ENDPOINTS_DISABLED, EVENTS_PARKED, LANES_OPEN
from tenant_schemas.flask import connections
from tenant_schemas.tenant import Tenant

COUNT_SECONDS: Final = 60.0

_FAILURES: Final = """
    SELECT (SELECT count(*) FROM webhook_lanes), (SELECT count(*) FROM webhook_parked),
        (SELECT count(*) FROM webhook_endpoints WHERE status = 'disabled' AND disabled_reason <> 'admin')"""


class Failures(NamedTuple):
    """Of a tenant's webhooks."""

    lanes_open: int = 0
    events_parked: int = 0
    endpoints_disabled: int = 0


class Upkeep:
    """The upkeep by one relay process. Thread-safe."""

    def __init__(self, retention: timedelta, *, has_broker: bool, now: Callable[[], float] = time.monotonic) -> None:
        self._retention = retention
        self._has_broker = has_broker
        self._now = now
        self._delivered: dict[UUID, Tenant] = {}
        self._counted_at: dict[UUID, float] = {}
        self._failures: dict[UUID, Failures] = {}
        self._lock = Lock()

    def tend(self, tenant: Tenant) -> bool:
        """Trim the bound tenant's feed, and count the failures of its webhooks. True if there is more to trim.
        Commits.
        """
        trimmed = trim_events(self._retention, MAX_TRIMMED, has_broker=self._has_broker)
        self.count_failures(tenant)
        return trimmed == MAX_TRIMMED

    def note_delivery(self, tenant: Tenant) -> None:
        """The tenant's failures may be others than those that were counted."""
        with self._lock:
            self._delivered[tenant.id] = tenant

    def take_uncounted(self) -> list[Tenant]:
        """The tenants with deliveries since their failures were counted, more than COUNT_SECONDS ago."""
        with self._lock:
            before = self._now() - COUNT_SECONDS
            due = [each for each in self._delivered.values() if self._counted_at.get(each.id, before) <= before]
            for tenant in due:
                del self._delivered[tenant.id]
            return due

    def count_failures(self, tenant: Tenant) -> None:
        """Set the gauges of all tenants, with the bound tenant's failures of now."""
        with self._lock:
            self._counted_at[tenant.id] = self._now()
        (row,) = connections().engine(tenant).one_statement(_FAILURES, ())
        with self._lock:
            self._failures[tenant.id] = Failures(*row)
            self._set_gauges()

    def forget_all_but(self, tenant_ids: Iterable[UUID]) -> None:
        """Count no failures of tenants that are gone."""
        kept = set(tenant_ids)
        with self._lock:
            self._failures = {known: found for known, found in self._failures.items() if known in kept}
            self._counted_at = {known: moment for known, moment in self._counted_at.items() if known in kept}
            self._delivered = {known: tenant for known, tenant in self._delivered.items() if known in kept}
            self._set_gauges()

    def _set_gauges(self) -> None:
        totals = Failures(*map(sum, zip(*self._failures.values(), strict=True)))
        LANES_OPEN.set(totals.lanes_open)
        EVENTS_PARKED.set(totals.events_parked)
        ENDPOINTS_DISABLED.set(totals.endpoints_disabled)
