"""GET /api/admin/audit-log."""

from typing import Any

from app.api.blueprint import Blueprint
from app.api.pagination import Page, paginate
from app.audit import service
from app.audit.models import ReadEntry
from app.audit.schemas import AuditPageSchema, AuditQuery
from app.auth.access import Access, access

blueprint = Blueprint("audit", __name__, url_prefix="/api/admin", description="Changes and refusals, by actor.")


@blueprint.get("/audit-log")
@access(Access.READER)
@blueprint.arguments(AuditQuery, location="query")
@blueprint.response(200, AuditPageSchema)
def list_audit_entries(query: dict[str, Any]) -> Page[ReadEntry]:
    """Changes by admins, services and operators in this tenant, and refused requests, newest first."""
    filters = {name: query.get(name) for name in ("action", "actor_id", "wallet_id", "is_refused")}
    return paginate(
        query, lambda after, limit: service.list_entries(after=after, limit=limit, **filters), lambda item: [item.seq]
    )
