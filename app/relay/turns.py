"""Work on tenants in turn, by a fixed number of threads.

A tenant that is offered waits at the end of the queue, once. It is never worked on by two threads of this queue at
once. A tenant with more to do than one turn allows goes to the end again, behind all others. A tenant whose turn failed
pauses.
"""

from collections import OrderedDict
from collections.abc import Callable
from threading import Condition, Thread
from typing import Final
from uuid import UUID

import structlog

from app.relay.pauses import Pauses
from tenant_schemas.tenant import Tenant

log = structlog.get_logger(__name__)

Work = Callable[[Tenant], bool]
"""One turn for a tenant. True if the tenant has more to do."""


class Turns:
    """A queue of tenants and its threads. Thread-safe."""

    def __init__(self, name: str, threads: int, work: Work, pauses: Pauses | None = None) -> None:
        self._name: Final = name
        self._work: Final = work
        self._pauses: Final = pauses or Pauses()
        self._waiting: OrderedDict[UUID, Tenant] = OrderedDict()
        self._running: set[UUID] = set()
        self._is_stopping = False
        self._changed = Condition()
        self._threads = [Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(threads)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def offer(self, tenant: Tenant) -> None:
        """Queue the tenant. One that waits already keeps its place, and its turn is for the registry row given last: it
        may have been renamed or restored meanwhile. A tenant that is worked on gets one more turn afterwards, and one
        that pauses none.
        """
        if self._pauses.is_paused(tenant.id):
            return
        with self._changed:
            self._waiting[tenant.id] = tenant
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
            return self._changed.wait_for(lambda: not self._waiting and not self._running, seconds)

    def _run(self) -> None:
        while tenant := self._take():
            has_more = False
            try:
                has_more = self._work(tenant)
                self._pauses.clear(tenant.id)
            except Exception:  # One tenant's failure is its own. A later sweep offers the tenant again.
                seconds = self._pauses.add(tenant.id)
                log.exception("relay_turn_failed", work=self._name, tenant=tenant.slug, pause_seconds=seconds)
            self._give_back(tenant, has_more=has_more)

    def _take(self) -> Tenant | None:
        """The tenant that has waited longest of those that no thread works on. None when the work is to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping or self._free_tenant() is not None)
            tenant_id = self._free_tenant()
            if self._is_stopping or tenant_id is None:
                return None
            self._running.add(tenant_id)
            return self._waiting.pop(tenant_id)

    def _free_tenant(self) -> UUID | None:
        return next((tenant_id for tenant_id in self._waiting if tenant_id not in self._running), None)

    def _give_back(self, tenant: Tenant, *, has_more: bool) -> None:
        with self._changed:
            self._running.remove(tenant.id)
            if has_more:
                self._waiting.setdefault(tenant.id, tenant)
            self._changed.notify_all()
