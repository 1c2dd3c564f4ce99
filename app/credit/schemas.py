"""Credit on the wire: policy, history and report."""

from typing import Any

from marshmallow import ValidationError, fields, validates_schema

from app.api.fields import Answer, Moment, Schema, coded
from app.api.money_fields import AmountField, MoneyField
from app.api.pagination import page_schema


class SetPolicySchema(Schema):
    default_limit = AmountField(required=True, allows="zero_or_more", data_key="defaultLimit")
    max_limit = AmountField(
        required=True,
        allows="zero_or_more",
        allow_none=True,
        data_key="maxLimit",
        metadata={"description": "null: no ceiling"},
    )

    @validates_schema
    def default_within_max(self, data: dict[str, Any], **_: Any) -> None:
        """The same rule as the CHECK credit_policies_default_within_max."""
        if data["max_limit"] is not None and data["default_limit"] > data["max_limit"]:
            fault = coded("default_above_max", "defaultLimit must not be above maxLimit.")
            raise ValidationError({"defaultLimit": [fault]})


class PolicySchema(Answer):
    currency = fields.String(metadata={"description": "ISO 4217"})
    default_limit = MoneyField(
        attribute="default_limit_minor",
        data_key="defaultLimit",
        metadata={"description": "the limit of a new wallet"},
    )
    max_limit = MoneyField(
        attribute="max_limit_minor",
        data_key="maxLimit",
        allow_none=True,
        metadata={"description": "the maximum of raised limits; null: no maximum"},
    )


class PolicyChangeSchema(Answer):
    at = Moment()
    actor_id = fields.UUID(data_key="actorId", allow_none=True)
    request_id = fields.String(data_key="requestId", allow_none=True)
    currency = fields.String(metadata={"description": "ISO 4217"})
    before = fields.Nested(PolicySchema, data_key="from")
    after = fields.Nested(PolicySchema, data_key="to")


class LimitChangeSchema(Answer):
    at = Moment()
    actor_id = fields.UUID(
        data_key="actorId", allow_none=True, metadata={"description": "null: a command made the change"}
    )
    action = fields.String()
    before = MoneyField(attribute="from_minor", data_key="from")
    after = MoneyField(attribute="to_minor", data_key="to")
    currency = fields.String(metadata={"description": "ISO 4217"})


class CreditInUseSchema(Answer):
    currency = fields.String(metadata={"description": "ISO 4217"})
    credit_limit = MoneyField(
        attribute="credit_limit_minor", data_key="creditLimit", metadata={"description": "of wallets that use credit"}
    )
    credit_used = MoneyField(attribute="credit_used_minor", data_key="creditUsed")
    up_to_30_days = MoneyField(attribute="up_to_30_days_minor", data_key="upTo30Days")
    up_to_60_days = MoneyField(attribute="up_to_60_days_minor", data_key="upTo60Days")
    up_to_90_days = MoneyField(attribute="up_to_90_days_minor", data_key="upTo90Days")
    over_90_days = MoneyField(attribute="over_90_days_minor", data_key="over90Days")
    since = Moment(allow_none=True, metadata={"description": "date of the oldest unpaid part"})


class CreditTotalsSchema(CreditInUseSchema):
    wallets = fields.Integer(metadata={"description": "how many use credit"})


class WalletCreditSchema(CreditInUseSchema):
    wallet_id = fields.UUID(data_key="walletId")
    user_id = fields.UUID(data_key="userId")
    email = fields.String(allow_none=True)
    name = fields.String(allow_none=True)


PolicyPageSchema = page_schema(PolicySchema)
CreditTotalsPageSchema = page_schema(CreditTotalsSchema)
PolicyChangePageSchema = page_schema(PolicyChangeSchema)
LimitChangePageSchema = page_schema(LimitChangeSchema)
WalletCreditPageSchema = page_schema(WalletCreditSchema)
