"""Refusals of documents."""

from app.errors import NotFound, TooManyRequests
from app.sql_refusals import sql_refusal


class DocumentNotFound(NotFound):
    """No such document, another caller's, or an expired one. All get the same answer."""

    code = "document_not_found"
    text = "There is no such document; documents are kept for a day."


class DocumentNotReady(NotFound):
    """The document is not made yet. `state` is the status of the job."""

    code = "document_not_ready"


@sql_refusal
class TooManyDocuments(TooManyRequests):
    """`whose` is caller or tenant, `limit` the most unfinished documents of one."""

    code = "too_many_documents"
    sqlstate = "WA030"
    text = "Too many documents are being made; try again when one is done."
