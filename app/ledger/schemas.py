"""What may be sent to move money and how its history looks from outside."""

from marshmallow import fields

from app.http import Choice, Identifier, Moment, Schema, Text
from app.money import AmountField, MoneyField
from app.pagination import PageQuery, page_schema
from tenant_schemas.context import current_tenant

TYPES = ("deposit", "payment", "refund", "adjustment", "opening")


class TransactionSchema(Schema):
    id = fields.UUID()
    wallet_id = fields.UUID(data_key="walletId")
    tenant_id = fields.Function(
        lambda _: current_tenant().slug, data_key="tenantId", metadata={"type": "string", "description": "the slug"}
    )
    seq = fields.Integer(metadata={"description": "numbered without gaps in its wallet"})
    type = fields.String(metadata={"enum": list(TYPES)})
    amount = MoneyField(attribute="amount_minor", metadata={"description": "signed by its effect on the balance"})
    balance_after = MoneyField(attribute="balance_after_minor", data_key="balanceAfter")
    currency = fields.String(metadata={"description": "ISO 4217"})
    order_id = fields.String(data_key="orderId", allow_none=True)
    payment_id = fields.UUID(attribute="refund_of", data_key="paymentId", allow_none=True)
    admin_id = fields.UUID(data_key="adminId", allow_none=True)
    description = fields.String(allow_none=True)
    reference = fields.String(allow_none=True)
    reason = fields.String(allow_none=True)
    created_at = Moment(data_key="createdAt")


class EntrySchema(Schema):
    entry_no = fields.Integer(data_key="entryNo")
    debit_account = fields.String(data_key="debitAccount")
    credit_account = fields.String(data_key="creditAccount")
    amount = MoneyField(attribute="amount_minor")


class TransactionWithEntriesSchema(TransactionSchema):
    entries = fields.List(fields.Nested(EntrySchema))


TransactionPageSchema = page_schema(TransactionSchema)


class TransactionListQuery(PageQuery):
    type = Choice(*TYPES)
    start = Moment(data_key="from", metadata={"description": "at or after"})
    end = Moment(data_key="to", metadata={"description": "before"})


class PaymentSchema(Schema):
    amount = AmountField(required=True)
    order_id = Text(max_length=100, data_key="orderId")
    description = Text(max_length=500)


class DepositSchema(Schema):
    amount = AmountField(required=True)
    reference = Text(max_length=200)


class RefundSchema(Schema):
    payment_id = Identifier(required=True, data_key="paymentId")
    amount = AmountField(metadata={"description": "all that is left of the payment if not given"})


class AdjustmentSchema(Schema):
    amount = AmountField(required=True, allows="not_zero")
    reason = Text(required=True, max_length=500)
