"""What each tenant needs once an hour: old events are deleted, and failures of its webhooks are counted."""

from collections.abc import Iterable
from datetime import timedelta
from threading import Lock
from typing import Final, NamedTuple
from uuid import UUID

from app.events.retention import MAX_TRIMMED, trim_events
from app.metrics.definitions import ENDPOINTS_DISABLED, EVENTS_PARKED, LANES_OPEN
from tenant_schemas.flask import connections
from tenant_schemas.tenant import Tenant

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

    def __init__(self, retention: timedelta, *, has_broker: bool) -> None:
        self._retention = retention
        self._has_broker = has_broker
        self._failures: dict[UUID, Failures] = {}
        self._lock = Lock()

    def tend(self, tenant: Tenant) -> bool:
        """Trim the bound tenant's feed, and count the failures of its webhooks. True if there is more to trim.
        Commits.
        """
        trimmed = trim_events(self._retention, MAX_TRIMMED, has_broker=self._has_broker)
        self.count_failures(tenant)
        return trimmed == MAX_TRIMMED

    def count_failures(self, tenant: Tenant) -> None:
        """Set the gauges of all tenants, with the bound tenant's failures of now."""
        (row,) = connections().engine(tenant).one_statement(_FAILURES, ())
        with self._lock:
            self._failures[tenant.id] = Failures(*row)
            self._set_gauges()

    def forget_all_but(self, tenant_ids: Iterable[UUID]) -> None:
        """Count no failures of tenants that are gone."""
        with self._lock:
            self._failures = {known: self._failures[known] for known in tenant_ids if known in self._failures}
            self._set_gauges()

    def _set_gauges(self) -> None:
        totals = Failures(*map(sum, zip(*self._failures.values(), strict=True)))
        LANES_OPEN.set(totals.lanes_open)
        EVENTS_PARKED.set(totals.events_parked)
        ENDPOINTS_DISABLED.set(totals.endpoints_disabled)
