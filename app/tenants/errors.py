"""Refusals about tenants."""

from app.errors import Conflict, NotFound, TooManyRequests, Unavailable


class TenantTaken(Conflict):
    code = "tenant_exists"


class ProvisioningNotFound(NotFound):
    code = "provisioning_not_found"


class TooManyProvisionings(TooManyRequests):
    code = "too_many_provisionings"


class ProvisioningUnavailable(Unavailable):
    code = "provisioning_unavailable"
