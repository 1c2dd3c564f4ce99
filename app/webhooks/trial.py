"""Sends a message of its own to a webhook, so that an admin sees at once whether it works."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

import orjson
import sqlalchemy as sa

from app.api.fields import moment_text
from app.audit.service import add_entry
from app.auth.actors import Actor
from app.db import db
from app.webhooks.delivery import own_delivery
from app.webhooks.errors import WebhookNotFound
from app.webhooks.models import WebhookAttempt
from app.webhooks.round import CONTENT_TYPE
from app.webhooks.sender import Answer
from app.webhooks.signature import signed_headers, signing_epochs
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

TEST_TYPE: Final = "webhook.test.v1"
TEST_SECONDS: Final = 5.0  # A request waits for it.
_FIND: Final = "SELECT url, secret_epoch, replaced_at FROM webhook_endpoints WHERE id = %s"
_NOTE: Final = sa.text(
    "SELECT * FROM webhook_tested_v1(:id, :event_id, :type, :outcome, :status, :failure, :duration_ms, :answer)"
)


@dataclass(frozen=True, slots=True)
class _Message:
    id: UUID
    sent_at: datetime
    body: bytes


def test_webhook(webhook_id: UUID, *, actor: Actor) -> WebhookAttempt:
    """Send a test to the webhook, enabled or not, and return its entry in the delivery log. Holds no connection of the
    database while it waits for the answer, for some ten seconds at most. Commits nothing. Raises WebhookNotFound.
    """
    rows = connections().engine(current_tenant()).one_statement(_FIND, (webhook_id,), retry=True)
    if not rows:
        raise WebhookNotFound(WebhookNotFound.text)
    url, epoch, replaced_at = rows[0]
    message = _message()
    delivery = own_delivery()
    headers = signed_headers(
        delivery.master_secret,
        current_tenant().id,
        webhook_id,
        signing_epochs(epoch, replaced_at, message.sent_at),
        message_id=str(message.id),
        timestamp=int(message.sent_at.timestamp()),
        body=message.body,
    )
    sender = replace(delivery.sender, answer_seconds=TEST_SECONDS)
    answer = sender.send(url, {"Content-Type": CONTENT_TYPE} | headers, message.body)
    return _note(webhook_id, message, answer, actor)


def _message() -> _Message:
    message_id, now = uuid4(), datetime.now(UTC)
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": str(message_id),
        "source": f"/tenants/{current_tenant().id}",
        "type": TEST_TYPE,
        "time": moment_text(now),
        "datacontenttype": "application/json",
        "data": {},
    }
    return _Message(message_id, now, orjson.dumps(event))


def _note(webhook_id: UUID, message: _Message, answer: Answer, actor: Actor) -> WebhookAttempt:
    told = {
        "id": webhook_id,
        "event_id": message.id,
        "type": TEST_TYPE,
        "outcome": "delivered" if answer.is_success else "failed",
        "status": answer.status,
        "failure": answer.failure,
        "duration_ms": answer.duration_ms,
        "answer": answer.text,
    }
    statement = sa.select(WebhookAttempt).from_statement(_NOTE.columns(*WebhookAttempt.__table__.columns))
    noted: WebhookAttempt | None = db.session.scalars(statement, told).one_or_none()
    if noted is None:  # It was deleted meanwhile.
        raise WebhookNotFound(WebhookNotFound.text)
    add_entry(actor, "webhook.test", subject=str(webhook_id), after={"outcome": noted.outcome})
    return noted
