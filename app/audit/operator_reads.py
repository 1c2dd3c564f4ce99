"""Records each request of an operator in a tenant that is neither a change nor a refusal, in that tenant's audit log.

A change and a refusal have entries of their own. All else that succeeds is a look, whatever its method: a read, a dry
run, a change that changes nothing. So each request of an operator in a tenant has an entry.
"""

from flask import Flask, Response

from app.api.requests import SAFE_METHODS
from app.audit.denials import REFUSALS, subject
from app.audit.service import commit_entry
from app.auth.access import actor, refuse_unknown_query
from app.current import g, request
from app.users.models import Role
from tenant_schemas.context import current_binding
from tenant_schemas.tenant import Tenant


def init_app(app: Flask) -> None:
    """Register the hooks. Call it after the gate's `init_app`, which sets the caller."""
    app.before_request(_note_read)
    app.after_request(_note_rest)


def _note_read() -> None:
    """Before the view of a read, because its answer may be a stream. Without the entry there is no answer. A parameter
    that the route does not have is refused after the entry.
    """
    if request.method in SAFE_METHODS:
        _note()
    if request.query_string:
        refuse_unknown_query()


def _note_rest(response: Response) -> Response:
    """After a successful request that may change something, and before its session commits: without the entry the
    answer is a 500.
    """
    if request.method not in SAFE_METHODS and response.status_code < REFUSALS.start and not g.get("has_audit_entry"):
        _note()
    return response


def _note() -> None:
    found = g.get("caller")
    if found is None or found.role is not Role.OPERATOR:
        return
    tenant = current_binding()
    if isinstance(tenant, Tenant):
        commit_entry(tenant, actor(), "look", subject=subject())
