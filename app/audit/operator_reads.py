"""Records in a tenant's audit log each read that an operator makes in that tenant, before the answer is made."""

from flask import Flask, g, request

from app.api.requests import SAFE_METHODS
from app.audit.service import note_in
from app.auth.access import actor, caller
from app.users.models import Role
from tenant_schemas.context import current_binding
from tenant_schemas.tenant import Tenant


def init_app(app: Flask) -> None:
    """To be called after the gate's own `init_app`: the gate says who the caller is."""
    app.before_request(_note)


def _note() -> None:
    if "caller" not in g or caller().role is not Role.OPERATOR or request.method not in SAFE_METHODS:
        return
    tenant = current_binding()
    if isinstance(tenant, Tenant):
        note_in(tenant, actor(), "look", subject=request.path)
