"""Documents: their state, and their bytes."""

from uuid import UUID

from flask import Response

from app.api.blueprint import Blueprint
from app.api.refusals import refuses
from app.auth.access import Access, access, caller
from app.statements import pdf
from app.statements.answers import answers_with_file, pdf_answer
from app.statements.documents import service
from app.statements.documents.answers import gives_retry_after, retry_after
from app.statements.documents.errors import DocumentNotFound, DocumentNotReady
from app.statements.documents.models import Document
from app.statements.documents.schemas import DocumentSchema

blueprint = Blueprint("documents", __name__, url_prefix="/api", description="Long statements, made in the background.")
_pdf = answers_with_file(blueprint, pdf.MEDIA_TYPE)


@blueprint.get("/wallet/documents/<uuid:document_id>")
@access(Access.MEMBER)
@gives_retry_after
@blueprint.response(200, DocumentSchema)
@refuses(DocumentNotFound)
def show_own_document(document_id: UUID) -> tuple[Document, int, dict[str, str]]:
    """The state of a statement that I asked for."""
    found = service.get_document(document_id, of_member=caller().user_id)
    return found, 200, retry_after(found)


@blueprint.get("/wallet/documents/<uuid:document_id>/content")
@access(Access.MEMBER)
@_pdf
@refuses(DocumentNotFound, DocumentNotReady)
def show_own_document_content(document_id: UUID) -> Response:
    """The statement that I asked for, as PDF."""
    return pdf_answer(service.get_content(document_id, of_member=caller().user_id))


@blueprint.get("/admin/documents/<uuid:document_id>")
@access(Access.READER)
@gives_retry_after
@blueprint.response(200, DocumentSchema)
@refuses(DocumentNotFound)
def show_document(document_id: UUID) -> tuple[Document, int, dict[str, str]]:
    """The state of a statement that was asked for in this tenant."""
    found = service.get_document(document_id)
    return found, 200, retry_after(found)


@blueprint.get("/admin/documents/<uuid:document_id>/content")
@access(Access.READER)
@_pdf
@refuses(DocumentNotFound, DocumentNotReady)
def show_document_content(document_id: UUID) -> Response:
    """A statement that was asked for in this tenant, as PDF."""
    return pdf_answer(service.get_content(document_id))
