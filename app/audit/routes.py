"""GET /api/admin/audit-log."""

from typing import Any

from app.api.blueprint import Blueprint
from app.api.pagination import Page, page_of
from app.audit import service
from app.audit.models import ShownEntry
from app.audit.schemas import AuditPageSchema, AuditQuery
from app.auth.access import Access, access

_FILTERS = ("start", "end", "action", "actor_id", "actor_kind", "wallet_id", "is_refused")
blueprint = Blueprint("audit", __name__, url_prefix="/api/admin", description="Changes and refusals, by actor.")


@blueprint.get("/audit-log")
@access(Access.READER)
@blueprint.arguments(AuditQuery, location="query")
@blueprint.response(200, AuditPageSchema)
def list_audit_entries(query: dict[str, Any]) -> Page[ShownEntry]:
    """Changes by admins, services and operators in this tenant, and refused requests, newest first."""
    filters = {name: query[name] for name in _FILTERS if name in query}
    return page_of(query, lambda page: service.list_entries(page, **filters))
