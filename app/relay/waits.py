"""How long tenants have been waiting for this relay, as its sweeps see them."""

import time
from collections.abc import Callable, Iterable
from uuid import UUID


class Waits:
    """For one kind of work, since when each tenant has had some without a break. One thread uses it."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since: dict[UUID, float] = {}

    def see(self, waiting: Iterable[UUID]) -> None:
        """Note the tenants that wait now, all of them."""
        now = self._now()
        self._since = {tenant_id: self._since.get(tenant_id, now) for tenant_id in waiting}

    @property
    def count(self) -> int:
        return len(self._since)

    @property
    def longest_seconds(self) -> float:
        return self._now() - min(self._since.values()) if self._since else 0.0
