"""Problems in OpenAPI."""

from marshmallow import INCLUDE, fields

from app.api.fields import Answer, Moment, Word, Words
from app.api.money_fields import MoneyField


class FaultSchema(Answer):
    """One fault of a request."""

    may_lack = ("pointer",)

    place = Word(
        Words("FaultPlace", "body", "query", "path", "header"), data_key="in", description="where the fault is"
    )
    field = fields.String(metadata={"description": "of the field, parameter or header: its name"})
    pointer = fields.String(metadata={"description": "of a field in the body: its JSON pointer (RFC 6901)"})
    code = fields.String(metadata={"description": "stable"})
    message = fields.String(metadata={"description": "for people"})


class DependentKeySchema(Answer):
    """An API key that depends on a member's right."""

    id = fields.UUID()
    name = fields.String()
    role = fields.String()
    last_used_at = Moment(data_key="lastUsedAt", allow_none=True)


class ProblemSchema(Answer):
    """An RFC 9457 problem. `type` leads to a page about its code. The members after `detail` explain some problems."""

    class Meta:
        unknown = INCLUDE

    may_lack = (
        *("errors", "currency", "available", "required", "shortfall", "refundable", "capturable", "max_limit"),
        *("credit_used", "held", "balance", "product_id", "limit", "movements", "item", "state", "whose", "wallet_id"),
        *("api_keys", "feed_id", "trimmed_to"),
    )

    type = fields.String(metadata={"format": "uri-reference"})
    title = fields.String()
    status = fields.Integer()
    code = fields.String()
    detail = fields.String(metadata={"description": "for people"})
    errors = fields.List(fields.Nested(FaultSchema), metadata={"description": "each fault of the request"})
    currency = fields.String(metadata={"description": "ISO 4217, of the amounts"})
    available = MoneyField(metadata={"description": "what the wallet has"})
    required = MoneyField(metadata={"description": "what the request needs"})
    shortfall = MoneyField(metadata={"description": "what is missing"})
    refundable = MoneyField(metadata={"description": "what is left of the payment to refund"})
    capturable = MoneyField(metadata={"description": "what is left of the hold to capture"})
    max_limit = MoneyField(data_key="maxLimit", metadata={"description": "the highest credit limit"})
    credit_used = MoneyField(data_key="creditUsed")
    held = MoneyField()
    balance = MoneyField()
    product_id = fields.UUID(data_key="productId")
    wallet_id = fields.UUID(data_key="walletId", metadata={"description": "of the refused item"})
    api_keys = fields.List(
        fields.Nested(DependentKeySchema),
        data_key="apiKeys",
        metadata={"description": "the keys for which the request must choose"},
    )
    limit = fields.Integer(metadata={"description": "the most of something"})
    movements = fields.Integer(metadata={"description": "in the period"})
    item = fields.Integer(metadata={"description": "the index of the refused item"})
    state = fields.String(metadata={"description": "of the document"})
    feed_id = fields.UUID(data_key="feedId", metadata={"description": "of the feed of today"})
    trimmed_to = fields.Integer(data_key="trimmedTo", metadata={"description": "after this position the feed has all"})
    whose = fields.String(metadata={"description": "whose limit it is"})
