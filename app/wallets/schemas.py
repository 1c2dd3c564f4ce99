"""Wallets on the wire."""

from typing import Any

from marshmallow import ValidationError, fields, validates_schema

from app.api.fields import Answer, Choice, Identifier, Moment, Schema, coded
from app.api.money_fields import AmountField, CurrencyField, MoneyField
from tenant_schemas.context import current_tenant

STATUSES = ("active", "frozen", "closed")


class WalletSchema(Answer):
    id = fields.UUID()
    tenant_id = fields.Function(
        lambda _: current_tenant().slug, data_key="tenantId", metadata={"type": "string", "description": "the slug"}
    )
    user_id = fields.UUID(data_key="userId")
    currency = fields.String(metadata={"description": "ISO 4217"})
    status = fields.String(metadata={"enum": list(STATUSES)})
    balance = MoneyField(attribute="balance_minor", metadata={"description": "depositBalance minus creditUsed"})
    deposit_balance = MoneyField(attribute="deposit_balance_minor", data_key="depositBalance")
    credit_limit = MoneyField(attribute="credit_limit_minor", data_key="creditLimit")
    credit_used = MoneyField(attribute="credit_used_minor", data_key="creditUsed")
    held = MoneyField(attribute="held_now_minor")
    available = MoneyField(attribute="available_minor", metadata={"description": "balance + creditLimit - held"})
    opened_at = Moment(data_key="openedAt")


class MemberWalletSchema(WalletSchema):
    """A wallet in a list for staff, with its member's address and name."""

    tenant_id = fields.Function(
        lambda wallet: wallet.tenant_slug,
        data_key="tenantId",
        metadata={"type": "string", "description": "the slug"},
    )
    email = fields.String(allow_none=True)
    name = fields.String(allow_none=True)


class OpenWalletSchema(Schema):
    user_id = Identifier(required=True, data_key="userId")
    currency = CurrencyField()


class ConfigureWalletSchema(Schema):
    credit_limit = AmountField(allows="zero_or_more", data_key="creditLimit")
    status = Choice(*STATUSES)

    @validates_schema
    def needs_something(self, data: dict[str, Any], **_: Any) -> None:
        if not data:
            raise ValidationError([coded("nothing_to_change", "Send creditLimit, status or both.")])
