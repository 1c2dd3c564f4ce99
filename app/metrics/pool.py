"""The connections of this process as metrics. They are read now and then: a checkout costs nothing more."""

from typing import Final

from app.metrics.definitions import (
    POOL_CLOSED,
    POOL_IN_USE,
    POOL_OPEN,
    POOL_OPENED,
    POOL_WAIT_SECONDS,
    POOL_WAITING,
    STATEMENT_RETRIES,
)
from tenant_schemas.connections import Connections
from tenant_schemas.pool import KINDS, PoolFigures

_NONE: Final = PoolFigures(in_use={}, waiting={}, opened={}, open=0, closed=0, retries=0, waits=())


class PoolSampler:
    """Sets the metrics of these connections. One thread at a time."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._before = _NONE

    def sample(self) -> None:
        """Set the gauges, and add to the counters what came since the last call."""
        now, before = self._connections.figures(), self._before
        self._before = now
        for kind in KINDS:
            POOL_IN_USE.labels(kind).set(now.in_use.get(kind, 0))
            POOL_WAITING.labels(kind).set(now.waiting.get(kind, 0))
            POOL_OPENED.labels(kind).inc(now.opened.get(kind, 0) - before.opened.get(kind, 0))
        POOL_OPEN.set(now.open)
        POOL_CLOSED.inc(now.closed - before.closed)
        STATEMENT_RETRIES.inc(now.retries - before.retries)
        for kind, seconds in now.waits:
            POOL_WAIT_SECONDS.labels(kind).observe(seconds)
