"""The paths of a document, for the caller of the current request."""

from uuid import UUID

from flask import request

from tenant_schemas.flask import PATH_SLUG


def document_path(document_id: UUID) -> str:
    """The member's path of the document or the admin's, as the request's own path is. It names the tenant if the
    request's path does.
    """
    slug = request.environ.get(PATH_SLUG)
    side = "admin" if request.path.startswith("/api/admin/") else "wallet"
    return f"/api/{f'{slug}/' if slug else ''}{side}/documents/{document_id}"
