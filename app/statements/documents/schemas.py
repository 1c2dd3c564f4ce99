"""Documents on the wire."""

from marshmallow import fields

from app.api.fields import Answer, Moment, Word, Words
from app.statements.documents.links import document_path

STATUSES = Words("DocumentStatus", "pending", "running", "done", "failed")


class DocumentSchema(Answer):
    id = fields.UUID()
    wallet_id = fields.UUID(data_key="walletId")
    period_start = Moment(data_key="from")
    period_end = Moment(data_key="to")
    status = Word(STATUSES)
    progress = fields.Integer(metadata={"minimum": 0, "maximum": 100, "description": "in percent"})
    movements = fields.Integer(metadata={"description": "in the period, as far as is known"})
    failure = fields.String(allow_none=True, metadata={"description": "the code of the reason, if it failed"})
    content = fields.Function(
        lambda document: f"{document_path(document.id)}/content" if document.status == "done" else None,
        metadata={"type": ["string", "null"], "description": "the path of the PDF, once it is done"},
    )
    requested_at = Moment(data_key="requestedAt")
    finished_at = Moment(data_key="finishedAt", allow_none=True)
    expires_at = Moment(data_key="expiresAt", metadata={"description": "then the document is deleted"})
