"""Webhooks on the wire."""

from typing import Any

from marshmallow import ValidationError, fields, validates_schema

from app.api.fields import Answer, Choice, Moment, QueryFlag, Schema, Text, Word, Words, coded
from app.api.pagination import PageQuery, page_schema
from app.api.text_fields import LedgerText
from app.events.schemas import TYPES as TYPE
from app.webhooks.addresses import MAX_URL_LENGTH
from app.webhooks.models import DISABLED_REASONS, ORDERS, OUTCOMES, PAYLOADS, SOURCES, STATUSES
from app.webhooks.sender import Failure

PAYLOAD = Words("WebhookPayload", *PAYLOADS)
ORDER = Words("WebhookOrder", *ORDERS)
STATUS = Words("WebhookStatus", *STATUSES)
REASON = Words("WebhookDisabledReason", *DISABLED_REASONS)
OUTCOME = Words("WebhookOutcome", *OUTCOMES)
SOURCE = Words("WebhookAttemptSource", *SOURCES)
FAILURE = Words("WebhookFailure", *Failure)
_TYPES_TEXT = "the types of events that it gets; none: all"
_PAYLOAD_TEXT = "thin: only ids, and what proves that no event is missing"
_ORDER_TEXT = "wallet: an event that fails holds up the later ones of its wallet; none: it holds up nothing"


class WebhookSchema(Answer):
    id = fields.UUID()
    url = fields.String(metadata={"format": "uri"})
    description = fields.String(allow_none=True)
    types = fields.List(fields.String(metadata=TYPE.metadata), metadata={"description": _TYPES_TEXT})
    payload = Word(PAYLOAD, description=_PAYLOAD_TEXT)
    delivery_order = Word(ORDER, data_key="order", description=_ORDER_TEXT)
    status = Word(STATUS)
    disabled_reason = Word(
        REASON,
        data_key="disabledReason",
        allow_none=True,
        description="gone: it answered 410; failing: it failed for five days; trimmed: the feed is no longer complete; "
        "restored: its tenant was restored beside another",
    )
    disabled_at = Moment(data_key="disabledAt", allow_none=True)
    version = fields.Integer(metadata={"description": "for If-Match"})
    created_at = Moment(data_key="createdAt")
    rotated_at = Moment(data_key="rotatedAt", allow_none=True)
    position = fields.Integer(metadata={"description": "the position in the feed up to which events were handled"})
    delivered = fields.Integer(metadata={"description": "how many messages were delivered"})
    last_delivered_at = Moment(data_key="lastDeliveredAt", allow_none=True)
    failing_since = Moment(
        data_key="firstFailedAt", allow_none=True, metadata={"description": "the first failure since the last success"}
    )


class WebhookDetailsSchema(WebhookSchema):
    held_up = fields.Integer(
        data_key="heldUp",
        metadata={"description": "how many wallets, or events without an order, wait after a failure"},
    )
    parked = fields.Integer(metadata={"description": "how many events were given up after ten attempts"})


class NewWebhookSchema(WebhookSchema):
    secret = fields.String(
        metadata={"description": "verifies signatures (Standard Webhooks). Only this answer contains it."}
    )


WebhookPageSchema = page_schema(WebhookSchema)


class _TypesField(fields.List[str]):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(Choice(TYPE), metadata={"description": _TYPES_TEXT, "maxItems": len(TYPE)}, **kwargs)


class CreateWebhookSchema(Schema):
    url = Text(required=True, max_length=MAX_URL_LENGTH, description="https://…, at port 443 or 8443")
    description = LedgerText(max_length=200)
    types = _TypesField(load_default=list)
    payload = Choice(PAYLOAD, load_default="full", description=_PAYLOAD_TEXT)
    delivery_order = Choice(ORDER, load_default="wallet", data_key="order", description=_ORDER_TEXT)


class ChangeWebhookSchema(Schema):
    url = Text(max_length=MAX_URL_LENGTH)
    description = LedgerText(max_length=200)
    types = _TypesField()
    payload = Choice(PAYLOAD, description=_PAYLOAD_TEXT)
    delivery_order = Choice(ORDER, data_key="order", description=_ORDER_TEXT)

    @validates_schema
    def changes_something(self, data: dict[str, Any], **_: Any) -> None:
        if not data:
            raise ValidationError([coded("nothing_to_change", "Name at least one field to change.")])


class EnableWebhookQuery(Schema):
    skips_trimmed = QueryFlag(
        load_default=False,
        data_key="skipTrimmed",
        metadata={"description": "go on without the events that the feed keeps no longer"},
    )


class WebhookAttemptSchema(Answer):
    id = fields.UUID()
    event_id = fields.UUID(
        data_key="eventId",
        metadata={
            "description": "the header webhook-id; of skipped events, the id of what waited: a wallet, or an event"
        },
    )
    type = fields.String()
    source = Word(SOURCE, description="feed: in its order; replay: again, as an admin wanted; test")
    attempt = fields.Integer(metadata={"minimum": 1})
    at = Moment()
    outcome = Word(
        OUTCOME,
        description="parked: failed for the last time; skipped: trimmed unsent, and an admin went on without it",
    )
    status = fields.Integer(allow_none=True, metadata={"description": "of the answer; null if there was none"})
    failure = Word(FAILURE, allow_none=True, description="why there was no answer")
    duration_ms = fields.Integer(data_key="durationMs", metadata={"minimum": 0})
    answer = fields.String(metadata={"description": "the first kilobyte of its body, or more about the failure"})


WebhookAttemptPageSchema = page_schema(WebhookAttemptSchema)


class AttemptListQuery(PageQuery):
    outcome = Choice(OUTCOME)


class ParkedEventSchema(Answer):
    event_id = fields.UUID(data_key="eventId")
    type = fields.String()
    position = fields.Integer()
    parked_at = Moment(data_key="parkedAt")


ParkedEventPageSchema = page_schema(ParkedEventSchema)


class ReplayWebhookSchema(Schema):
    start = Moment(required=True, data_key="from", metadata={"description": "events at or after this moment"})
    end = Moment(required=True, data_key="to", metadata={"description": "and before this moment"})
    types = _TypesField(load_default=list)

    @validates_schema
    def holds_a_moment(self, data: dict[str, Any], **_: Any) -> None:
        if data["start"] >= data["end"]:
            raise ValidationError([coded("empty_period", "`to` must be later than `from`.")], "to")


class WebhookReplaySchema(Answer):
    id = fields.UUID()
    webhook_id = fields.UUID(attribute="endpoint_id", data_key="webhookId")
    types = fields.List(fields.String(metadata=TYPE.metadata), metadata={"description": "none: those of the webhook"})
    position = fields.Integer(metadata={"description": "the position in the feed up to which it has come"})
    until_position = fields.Integer(data_key="untilPosition")
    delivered = fields.Integer(metadata={"description": "how many messages were delivered"})
    created_at = Moment(data_key="createdAt")
    finished_at = Moment(data_key="finishedAt", allow_none=True)
