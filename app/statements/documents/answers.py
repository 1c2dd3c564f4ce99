"""Answers about documents that are being made: where to look, and when to look again."""

from flask import Response, current_app

from app.api.headers import gives_header
from app.api.refusals import View
from app.statements.documents.links import document_path
from app.statements.documents.models import Document
from app.statements.documents.schemas import DocumentSchema

_MOVEMENTS_PER_SECOND = 3_000
_MOST_SECONDS = 30


def gives_location(view: View) -> View:
    """Describe in OpenAPI that a view may say where to look."""
    return gives_header("Location", "The document, to poll for its state.", on=(202,))(view)


def gives_retry_after(view: View) -> View:
    """Describe in OpenAPI that a view may say when to look again."""
    return gives_header("Retry-After", "Seconds until the next look at an unfinished document.", always=False)(view)


def accepted(document: Document) -> Response:
    """202: the document is being made."""
    body = current_app.json.dumps(DocumentSchema().dump(document))
    headers = {"Location": document_path(document.id), **retry_after(document)}
    return Response(body, 202, headers, content_type="application/json")


def retry_after(document: Document) -> dict[str, str]:
    """The header for an unfinished document, by the number of its movements; no header for a finished one."""
    seconds = min(_MOST_SECONDS, 1 + document.movements // _MOVEMENTS_PER_SECOND)
    return {"Retry-After": str(seconds)} if document.is_unfinished else {}
