"""Limits of the use of the service: request rates of a caller and of a tenant, concurrent requests, body size, log-ins.
Those of a tenant have defaults, which a tenant's settings may replace (`app/tenant_settings.py`).

A request that is refused here has not touched the tenant's schema. The limits of connections and statement time are in
`tenant_schemas/connections.py`.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

import structlog
from flask import Flask

from app.config import Settings
from app.current import current_app, g, request
from app.errors import Invalid, TooManyRequests, Unavailable
from app.limits import attempts, rate_limit
from app.limits.concurrency import SHARED_SIDE, ConcurrencySlots, ReleaseSlot, Share
from app.tenant_settings import stored_settings
from tenant_schemas.tenant import Tenant

log = structlog.get_logger(__name__)

EXTENSION = "tenant_limits"
# The limits of requests, which a tenant's admin may see.
SHOWN = ("rate_limit", "caller_rate_limit", "max_concurrent_requests", "max_body_bytes")


class TenantMisconfigured(Unavailable):
    """The stored settings of a tenant are invalid. Only SQL by hand causes this: all other writers check settings."""

    code = "tenant_misconfigured"


class Limits:
    """The limits of each tenant in this process. A tenant's settings are checked again after its registry row has
    changed.
    """

    def __init__(self, settings: Settings) -> None:
        self.slots = ConcurrencySlots(settings)
        self.defaults: dict[str, Any] = {
            "rate_limit": settings.tenant_rate_limit,
            "caller_rate_limit": settings.caller_rate_limit,
            "max_concurrent_requests": settings.request_concurrency,
            "share": Share(settings.tenant_concurrency, settings.request_concurrency),
            "max_body_bytes": settings.max_body_bytes,
        }
        self._tenant_concurrency = settings.tenant_concurrency
        self._known: dict[UUID, tuple[Mapping[str, Any], dict[str, Any]]] = {}

    def of(self, tenant: Tenant) -> dict[str, Any]:
        """The tenant's limits: its settings over the defaults. Raises TenantMisconfigured."""
        known = self._known.get(tenant.id)
        if known is None or known[0] != tenant.settings:
            own = self.defaults | _checked(tenant)
            most = int(own["max_concurrent_requests"])
            own["share"] = Share(min(most, self._tenant_concurrency), most)
            known = (tenant.settings, own)
            self._known[tenant.id] = known
        return known[1]


def init_app(app: Flask, settings: Settings) -> None:
    """Register the limits, and the middleware that returns slots."""
    limits = app.extensions[EXTENSION] = Limits(settings)
    rate_limit.init_app(app, settings)
    attempts.init_app(app, settings, limits.slots)
    app.wsgi_app = ReleaseSlot(app.wsgi_app, settings.stream_seconds)  # type: ignore[method-assign]


def enter(tenant: Tenant, caller_id: UUID) -> None:
    """Count the request for this caller and this tenant, and reserve a slot, for which it may have to wait. Call it
    once, as soon as both are known.

    Raises TooManyRequests, TooManyConcurrentRequests, DeadlineExceeded or TenantMisconfigured.
    """
    limits: Limits = current_app.extensions[EXTENSION]
    own = limits.of(tenant)
    rate_limit.count_request(tenant.id, caller_id, own["caller_rate_limit"], own["rate_limit"])
    limits.slots.take(request.environ, tenant.id, caller_id, own["share"])
    if "max_body_bytes" in tenant.settings:
        g.max_body_bytes = own["max_body_bytes"]
        request.max_content_length = min(request.max_content_length or own["max_body_bytes"], own["max_body_bytes"])


def count_command(tenant: Tenant, caller_id: UUID) -> float:
    """Count a command from a queue as a request of this caller and this tenant. It needs no slot: a tenant's commands
    run one after the other. Returns 0, or the seconds to wait if a limit is reached. Raises TenantMisconfigured.
    """
    limits: Limits = current_app.extensions[EXTENSION]
    own = limits.of(tenant)
    try:
        rate_limit.count_request(tenant.id, caller_id, own["caller_rate_limit"], own["rate_limit"])
    except TooManyRequests:
        return float(g.refused_by.reset_seconds)
    return 0.0


def enter_shared_side(caller_id: UUID) -> None:
    """Count the request of a caller who uses no tenant, and reserve a slot. Raises what `enter` raises."""
    limits: Limits = current_app.extensions[EXTENSION]
    own = limits.defaults
    rate_limit.count_caller(caller_id, own["caller_rate_limit"])
    limits.slots.take(request.environ, SHARED_SIDE, caller_id, own["share"])


def limits_of(tenant: Tenant) -> dict[str, Any]:
    """The tenant's limits as they hold now: its settings over the defaults. Raises TenantMisconfigured."""
    limits: Limits = current_app.extensions[EXTENSION]
    return {name: value for name, value in limits.of(tenant).items() if name in SHOWN}


def log_in_slot() -> AbstractContextManager[None]:
    """`with log_in_slot():` around the hashing of a password for a caller who has not logged in and tries none, such as
    one with a mailed token. The request may have to wait a second for the slot. Raises TooManyConcurrentRequests.
    """
    limits: Limits = current_app.extensions[EXTENSION]
    return limits.slots.log_in(rate_limit.client_address())


def _checked(tenant: Tenant) -> dict[str, Any]:
    try:
        return stored_settings(tenant.settings)
    except Invalid as error:
        log.error("tenant_misconfigured", tenant=tenant.slug, faults=error.detail)  # noqa: TRY400
        raise TenantMisconfigured("This tenant's settings are invalid; an operator must correct them.") from None
