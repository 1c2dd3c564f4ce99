"""Records an operator's read requests in the tenant's audit log, before the view runs."""

from flask import Flask

from app.api.requests import SAFE_METHODS
from app.audit.service import commit_entry
from app.auth.access import actor
from app.current import g, request
from app.users.models import Role
from tenant_schemas.context import current_binding
from tenant_schemas.tenant import Tenant


def init_app(app: Flask) -> None:
    """Register the hook. Call it after the gate's `init_app`, which sets the caller."""
    app.before_request(_note)


def _note() -> None:
    found = g.get("caller")
    if found is None or found.role is not Role.OPERATOR or request.method not in SAFE_METHODS:
        return
    tenant = current_binding()
    if isinstance(tenant, Tenant):
        commit_entry(tenant, actor(), "look", subject=request.path)
