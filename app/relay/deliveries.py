"""Turns of webhook endpoints: one endpoint at a time in each thread, of all tenants.

A slow endpoint delays no other: endpoints of one tenant are delivered to side by side. One tenant holds half of the
threads at most. Endpoints that answered slowly last time hold half of the threads, and half of those of their tenant.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from flask import Flask

from app.relay.turns import Turns
from app.webhooks.delivery import Turn, deliver_due
from app.webhooks.lease import due_endpoints
from tenant_schemas.context import bound
from tenant_schemas.tenant import Tenant

SLOW_SECONDS: Final = 5.0
"""The mean time of a message from which on an endpoint is slow."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint that is due."""

    tenant: Tenant
    endpoint_id: UUID

    @property
    def id(self) -> tuple[UUID, UUID]:
        return self.tenant.id, self.endpoint_id

    @property
    def slug(self) -> str:
        return self.tenant.slug


class Deliveries:
    """The deliveries of one relay process. `delivered` is called after each turn, with the tenant bound. What is known
    of an endpoint's last turn is kept while it is slow or has a round to begin with. Thread-safe.
    """

    def __init__(self, app: Flask, senders: int, delivered: Callable[[Tenant], None]) -> None:
        self._app = app
        self._delivered = delivered
        self._most_of_tenant = max(2, senders // 2)
        self._most_slow = max(1, senders // 2)
        self._last: dict[tuple[UUID, UUID], Turn] = {}
        self.turns: Final = Turns("relay-deliveries", senders, self._deliver, may_start=self.may_start)

    def offer_due(self, tenant: Tenant) -> bool:
        """Offer the endpoints of the bound tenant that are due. False: there is no more to do."""
        for endpoint_id in due_endpoints():
            self.turns.offer(Endpoint(tenant, endpoint_id))
        return False

    def may_start(self, endpoint: Endpoint, running: Collection[Endpoint]) -> bool:
        """Whether the endpoint may have its turn beside those that have theirs now."""
        of_tenant = [other for other in running if other.tenant.id == endpoint.tenant.id]
        if len(of_tenant) >= self._most_of_tenant:
            return False
        if not self._is_slow(endpoint):
            return True
        slow_of_tenant = sum(map(self._is_slow, of_tenant))
        return slow_of_tenant < self._most_of_tenant // 2 and sum(map(self._is_slow, running)) < self._most_slow

    def forget_all_but(self, tenant_ids: Collection[UUID]) -> None:
        """Forget the endpoints of tenants that are gone."""
        for key in [key for key in self._last.copy() if key[0] not in tenant_ids]:
            self._last.pop(key, None)

    def _deliver(self, endpoint: Endpoint) -> bool:
        last = self._last.get(endpoint.id, Turn())
        with self._app.app_context(), bound(endpoint.tenant):
            turn = deliver_due(endpoint.endpoint_id, last.next_round)
            if turn is None:
                return False
            self._remember(endpoint, turn)
            self._delivered(endpoint.tenant)
            return True

    def _remember(self, endpoint: Endpoint, turn: Turn) -> None:
        if turn.mean_seconds > SLOW_SECONDS or turn.next_round:
            self._last[endpoint.id] = turn
        else:
            self._last.pop(endpoint.id, None)

    def _is_slow(self, endpoint: Endpoint) -> bool:
        return self._last.get(endpoint.id, Turn()).mean_seconds > SLOW_SECONDS
