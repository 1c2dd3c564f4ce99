"""Bulk posting on the wire. The fields of an item are those of the route for a single movement."""

from typing import Any

from marshmallow import fields

from app.api.fields import REQUIRED, Answer, Choice, Flag, Identifier, OneOf, Schema, coded
from app.ledger.schemas import AdjustmentSchema, DepositSchema, PaymentSchema, TransactionSchema

MAX_ITEMS = 1000


class BulkDepositSchema(DepositSchema):
    wallet_id = Identifier(required=True, data_key="walletId")
    type = Choice("deposit", required=True)


class BulkPaymentSchema(PaymentSchema):
    wallet_id = Identifier(required=True, data_key="walletId")
    type = Choice("payment", required=True)


class BulkAdjustmentSchema(AdjustmentSchema):
    wallet_id = Identifier(required=True, data_key="walletId")
    type = Choice("adjustment", required=True)


class ItemsField(fields.List[Any]):
    """One to MAX_ITEMS items, counted before any is loaded."""

    default_error_messages = {  # noqa: RUF012  marshmallow's own way
        **REQUIRED,
        "invalid": coded("not_a_list", "A list is needed."),
        "count": coded("items_out_of_range", f"Send 1 to {MAX_ITEMS} items."),
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if isinstance(value, list) and not 1 <= len(value) <= MAX_ITEMS:
            raise self.make_error("count")
        read: list[Any] = super()._deserialize(value, attr, data, **kwargs)
        return read


class BulkSchema(Schema):
    atomic = Flag(load_default=True, metadata={"description": "true: all or nothing; false: each item on its own"})
    items = ItemsField(
        OneOf({"deposit": BulkDepositSchema(), "payment": BulkPaymentSchema(), "adjustment": BulkAdjustmentSchema()}),
        required=True,
        metadata={"minItems": 1, "maxItems": MAX_ITEMS},
    )


class OutcomeSchema(Answer):
    may_lack = ("replayed", "transaction", "problem")

    index = fields.Integer(metadata={"description": "of the item, from 0"})
    status = fields.Integer(metadata={"description": "201, or the problem's status"})
    replayed = fields.Boolean(metadata={"description": "true if an earlier request with this key posted it"})
    transaction = fields.Nested(TransactionSchema)
    problem = fields.Dict(
        metadata={
            "x-schema": "Problem",
            "description": "the refusal, as of the route for one movement; then there is no transaction",
        }
    )


class OutcomesSchema(Answer):
    items = fields.List(fields.Nested(OutcomeSchema), metadata={"description": "one for each item, in the same order"})
