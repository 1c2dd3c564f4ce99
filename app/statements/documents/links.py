"""The paths of a document, for the caller of the current request."""

from uuid import UUID

from flask import request

from app.api.links import path_of


def document_path(document_id: UUID) -> str:
    """The member's path of the document or the admin's, as the request's own path is."""
    side = "admin" if request.path.startswith("/api/admin/") else "wallet"
    return path_of(f"{side}/documents/{document_id}")
