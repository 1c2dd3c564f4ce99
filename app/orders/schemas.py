"""Orders on the wire.

The limits of items and quantities are not here: `order_place_v1` holds them and refuses by name.
"""

from marshmallow import fields

from app.api.dry_runs import MayBeDryRun
from app.api.fields import REQUIRED, Answer, Choice, Identifier, Moment, PeriodQuery, Schema, Word, Words, coded
from app.api.money_fields import MoneyField
from app.api.pagination import CountedPageQuery, PageQuery, counted_page_schema, page_schema
from app.users.schemas import PersonSchema
from tenant_schemas.context import current_tenant

STATUSES = Words("OrderStatus", "paid", "cancelled")


class OrderedItemSchema(Schema):
    product_id = Identifier(required=True, data_key="productId")
    quantity = fields.Integer(
        strict=True,
        required=True,
        metadata={"minimum": 1, "maximum": 1000},
        error_messages={**REQUIRED, "invalid": coded("not_an_integer", "A whole number is needed.")},
    )


class PlaceOrderSchema(Schema):
    items = fields.List(
        fields.Nested(OrderedItemSchema, error_messages={"null": coded("not_an_object", "A JSON object is needed.")}),
        required=True,
        metadata={"minItems": 1, "maxItems": 100},
        error_messages={**REQUIRED, "invalid": coded("not_a_list", "A list is needed.")},
    )


class OrderItemSchema(Answer):
    item_no = fields.Integer(data_key="itemNo")
    product_id = fields.UUID(data_key="productId")
    sku = fields.String()
    name = fields.String()
    quantity = fields.Integer()
    unit_price = MoneyField(
        attribute="unit_price_minor", data_key="unitPrice", metadata={"description": "when the order was placed"}
    )
    line_total = MoneyField(attribute="line_total_minor", data_key="lineTotal")


class OrderSchema(Answer):
    id = fields.UUID()
    tenant_id = fields.Function(
        lambda _: current_tenant().slug, data_key="tenantId", metadata={"type": "string", "description": "the slug"}
    )
    user_id = fields.UUID(data_key="userId")
    wallet_id = fields.UUID(data_key="walletId")
    status = Word(STATUSES)
    total = MoneyField(attribute="total_minor")
    currency = fields.String(metadata={"description": "ISO 4217"})
    items = fields.List(fields.Nested(OrderItemSchema))
    payment_id = fields.UUID(data_key="paymentId")
    refund_id = fields.UUID(
        data_key="refundId", allow_none=True, metadata={"description": "the refund that its cancellation posted"}
    )
    created_at = Moment(data_key="createdAt")
    cancelled_at = Moment(data_key="cancelledAt", allow_none=True)


class PlacedOrderSchema(OrderSchema, MayBeDryRun):
    balance_after = MoneyField(
        attribute="balance_after_minor", data_key="balanceAfter", metadata={"description": "after its payment"}
    )


class CancelledOrderSchema(OrderSchema, MayBeDryRun):
    refunded = MoneyField(attribute="refunded_minor", metadata={"description": "what was left to refund"})
    balance_after = MoneyField(
        attribute="balance_after_minor",
        data_key="balanceAfter",
        allow_none=True,
        metadata={"description": "after its refund; null without a refund"},
    )


class StaffOrderSchema(OrderSchema):
    """An order for staff, with its member."""

    owner = fields.Nested(PersonSchema)


OrderPageSchema = page_schema(OrderSchema)
StaffOrderPageSchema = counted_page_schema(StaffOrderSchema)


class OrderFilters(PeriodQuery):
    """The period is that of the orders' creation."""

    status = Choice(STATUSES)


class OwnOrderListQuery(OrderFilters, PageQuery):
    """A page of my filtered orders."""


class WalletOrderListQuery(OrderFilters, CountedPageQuery):
    """A page of a wallet's filtered orders."""


class OrderListQuery(WalletOrderListQuery):
    user_id = Identifier(data_key="userId", metadata={"description": "the member whose orders are listed"})
