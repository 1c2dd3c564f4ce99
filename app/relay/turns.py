"""Work on tenants in turn, by a fixed number of threads.

A tenant that is offered waits at the end of the queue, once. It is never worked on by two threads of this queue at
once. A tenant with more to do than one turn allows goes to the end again, behind all others.
"""

from collections import deque
from collections.abc import Callable
from threading import Condition, Thread
from typing import Final
from uuid import UUID

import structlog

from tenant_schemas.tenant import Tenant

log = structlog.get_logger(__name__)

Work = Callable[[Tenant], bool]
"""One turn for a tenant. True if the tenant has more to do."""


class Turns:
    """A queue of tenants and its threads. Thread-safe."""

    def __init__(self, name: str, threads: int, work: Work) -> None:
        self._name: Final = name
        self._work: Final = work
        self._waiting: deque[Tenant] = deque()
        self._offered: set[UUID] = set()
        self._running: set[UUID] = set()
        self._is_stopping = False
        self._changed = Condition()
        self._threads = [Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(threads)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def offer(self, tenant: Tenant) -> None:
        """Queue the tenant, unless it waits already. A tenant that is worked on gets one more turn afterwards."""
        with self._changed:
            if tenant.id not in self._offered:
                self._offered.add(tenant.id)
                self._waiting.append(tenant)
                self._changed.notify_all()

    def stop(self, seconds: float) -> bool:
        """Let each thread finish its turn and take no other. False if one of them is not done within these seconds."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._running, seconds)

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until no tenant waits or is worked on. False if that takes longer than these seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._offered and not self._running, seconds)

    def _run(self) -> None:
        while tenant := self._take():
            has_more = False
            try:
                has_more = self._work(tenant)
            except Exception:  # One tenant's failure is its own. The next sweep offers the tenant again.
                log.exception("relay_turn_failed", work=self._name, tenant=tenant.slug)
            self._give_back(tenant, has_more=has_more)

    def _take(self) -> Tenant | None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping or self._has_free_tenant())
            if self._is_stopping:
                return None
            while self._waiting[0].id in self._running:
                self._waiting.rotate(-1)
            tenant = self._waiting.popleft()
            self._offered.remove(tenant.id)
            self._running.add(tenant.id)
            return tenant

    def _has_free_tenant(self) -> bool:
        return any(tenant.id not in self._running for tenant in self._waiting)

    def _give_back(self, tenant: Tenant, *, has_more: bool) -> None:
        if has_more:
            self.offer(tenant)
        with self._changed:
            self._running.remove(tenant.id)
            self._changed.notify_all()
