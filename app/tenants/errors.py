"""Refusals about tenants."""

from app.errors import Conflict, NotFound, TooManyRequests, Unavailable


class TenantTaken(Conflict):
    """A tenant has this slug, or was requested with it."""

    code = "tenant_exists"


class ProvisioningNotFound(NotFound):
    """There is no such request for a tenant."""

    code = "provisioning_not_found"


class TooManyProvisionings(TooManyRequests):
    """Too many requests for tenants are pending."""

    code = "too_many_provisionings"


class ProvisioningUnavailable(Unavailable):
    """The service has no right to make tenants: an operator must run the script."""

    code = "provisioning_unavailable"
