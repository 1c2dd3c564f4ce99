"""Holds on the wire."""

from marshmallow import fields

from app.api.fields import Answer, Moment, Schema, Text, Word, Words
from app.api.money_fields import AmountField, MoneyField
from app.api.pagination import PageQuery, page_schema
from app.wallets.currencies import CurrencyQuery
from tenant_schemas.context import current_tenant

STATUSES = Words("HoldStatus", "active", "captured", "voided", "expired")


class AuthoriseSchema(Schema):
    amount = AmountField(required=True)
    expires_at = Moment(data_key="expiresAt", metadata={"description": "default: seven days from now"})
    order_id = Text(max_length=100, data_key="orderId")
    description = Text(max_length=500)


class CaptureSchema(Schema):
    amount = AmountField(metadata={"description": "default: the remaining amount of the hold"})


class HoldSchema(Answer):
    id = fields.UUID()
    wallet_id = fields.UUID(data_key="walletId")
    tenant_id = fields.Function(
        lambda _: current_tenant().slug, data_key="tenantId", metadata={"type": "string", "description": "the slug"}
    )
    status = Word(STATUSES, attribute="status_now")
    amount = MoneyField(attribute="amount_minor")
    captured = MoneyField(attribute="captured_minor")
    capturable = MoneyField(
        attribute="capturable_minor", metadata={"description": "the amount that can still be captured"}
    )
    currency = fields.String(metadata={"description": "ISO 4217"})
    order_id = fields.String(data_key="orderId", allow_none=True)
    description = fields.String(allow_none=True)
    created_at = Moment(data_key="createdAt")
    expires_at = Moment(data_key="expiresAt")


HoldPageSchema = page_schema(HoldSchema)


class HoldListQuery(PageQuery, CurrencyQuery):
    """Lists of holds have no filters: the currency selects the member's wallet."""
