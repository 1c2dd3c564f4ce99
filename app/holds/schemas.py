"""Holds on the wire."""

from marshmallow import fields

from app.api.dry_runs import MayBeDryRun
from app.api.fields import Answer, Choice, Moment, PeriodQuery, Schema, Word, Words
from app.api.money_fields import AmountField, MoneyField
from app.api.pagination import CountedPageQuery, PageQuery, counted_page_schema, page_schema
from app.api.text_fields import LedgerText
from app.users.schemas import PersonSchema
from app.wallets.currencies import CurrencyQuery
from tenant_schemas.context import current_tenant

STATUSES = Words("HoldStatus", "active", "captured", "voided", "expired")


class AuthoriseSchema(Schema):
    amount = AmountField(required=True)
    expires_at = Moment(data_key="expiresAt", metadata={"description": "default: seven days from now"})
    order_id = LedgerText(max_length=100, data_key="orderId")
    description = LedgerText(max_length=500)


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


class StaffHoldSchema(HoldSchema):
    """A hold for staff, with the wallet's member."""

    owner = fields.Nested(PersonSchema)


HoldPageSchema = page_schema(HoldSchema)
StaffHoldPageSchema = counted_page_schema(StaffHoldSchema)


class AuthorisedHoldSchema(HoldSchema, MayBeDryRun):
    """A hold that the request made, or would make."""


class HoldFilters(PeriodQuery):
    """The period is that of the holds' creation."""

    status = Choice(STATUSES)


class OwnHoldListQuery(HoldFilters, PageQuery, CurrencyQuery):
    """The currency selects the member's wallet."""


class HoldListQuery(HoldFilters, CountedPageQuery):
    """A page of a wallet's, or of all, filtered holds."""
