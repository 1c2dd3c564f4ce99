"""Answers that are files: their headers, their description in OpenAPI, and a limit for clients that read nothing."""

from collections.abc import Callable, Iterable
from typing import Any, cast

from flask import Response, request

from app.api.blueprint import Blueprint
from app.api.refusals import View
from app.statements import pdf
from app.statements.streams import STALLED_CLIENT_SECONDS
from tenant_schemas.context import current_tenant


def answers_with_file(blueprint: Blueprint, media_type: str, **about: str) -> Callable[[View], View]:
    """Describe in OpenAPI that a view may answer with a file. A file of bytes has no type there."""
    schema = {"contentMediaType": media_type, **about}
    mark = cast(Any, blueprint).alt_response(200, schema=schema, content_type=media_type)
    return cast(Callable[[View], View], mark)


def pdf_answer(document: bytes) -> Response:
    return streamed(document, pdf.MEDIA_TYPE, "statement.pdf")


def streamed(body: Iterable[bytes] | bytes, content_type: str, filename: str | None = None) -> Response:
    """An answer that may be long. Without a limit, gunicorn would wait for ever for a client that reads nothing, and
    that client would occupy a thread. Files are named after their tenant, whose slug needs no quoting.
    """
    connection = request.environ.get("gunicorn.socket")
    if connection is not None:
        connection.settimeout(STALLED_CLIENT_SECONDS)
    attachment = {"Content-Disposition": f'attachment; filename="{current_tenant().slug}-{filename}"'}
    return Response(body, content_type=content_type, headers=attachment if filename else None)
