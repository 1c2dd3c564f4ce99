"""Wallet transactions on the wire."""

from typing import Any

from marshmallow import ValidationError, fields, validates_schema

from app.api.fields import Answer, Choice, Identifier, Moment, Schema, Text, Word, Words, coded
from app.api.money_fields import AmountField, MoneyField
from app.api.pagination import PageQuery, page_schema
from app.wallets.currencies import CurrencyQuery
from tenant_schemas.context import current_tenant

TYPES = Words("TransactionType", "deposit", "payment", "refund", "adjustment", "opening")


class TransactionSchema(Answer):
    may_lack = ("refundable",)

    id = fields.UUID()
    wallet_id = fields.UUID(data_key="walletId")
    tenant_id = fields.Function(
        lambda _: current_tenant().slug, data_key="tenantId", metadata={"type": "string", "description": "the slug"}
    )
    seq = fields.Integer(metadata={"description": "gapless in its wallet"})
    type = Word(TYPES)
    amount = MoneyField(attribute="amount_minor", metadata={"description": "signed by its effect on the balance"})
    balance_after = MoneyField(attribute="balance_after_minor", data_key="balanceAfter")
    currency = fields.String(metadata={"description": "ISO 4217"})
    order_id = fields.String(data_key="orderId", allow_none=True)
    payment_id = fields.UUID(attribute="refund_of", data_key="paymentId", allow_none=True)
    hold_id = fields.UUID(data_key="holdId", allow_none=True)
    admin_id = fields.UUID(data_key="adminId", allow_none=True)
    description = fields.String(allow_none=True)
    reference = fields.String(allow_none=True)
    reason = fields.String(allow_none=True)
    refundable = MoneyField(
        attribute="refundable_minor",
        allow_none=True,
        metadata={"description": "for a refund: the amount of its payment that can still be refunded; not in lists"},
    )
    created_at = Moment(data_key="createdAt")


class EntrySchema(Answer):
    entry_no = fields.Integer(data_key="entryNo")
    debit_account = fields.String(data_key="debitAccount")
    credit_account = fields.String(data_key="creditAccount")
    amount = MoneyField(attribute="amount_minor")


class TransactionWithEntriesSchema(TransactionSchema):
    entries = fields.List(fields.Nested(EntrySchema))


class BalanceQuery(Schema):
    at = Moment(metadata={"description": "now if not given"})


class OwnBalanceQuery(BalanceQuery, CurrencyQuery):
    """The currency selects the member's wallet."""


class BalanceSchema(Answer):
    wallet_id = fields.UUID(data_key="walletId")
    currency = fields.String(metadata={"description": "ISO 4217"})
    at = Moment()
    balance = MoneyField(attribute="balance_minor")
    deposit_balance = MoneyField(attribute="deposit_balance_minor", data_key="depositBalance")
    credit_used = MoneyField(attribute="credit_used_minor", data_key="creditUsed")


class TrialBalanceLineSchema(Answer):
    currency = fields.String(metadata={"description": "ISO 4217"})
    account = fields.String()
    part = fields.String(allow_none=True, metadata={"description": "of the control account"})
    kind = fields.String()
    debit = MoneyField(attribute="debit_minor")
    credit = MoneyField(attribute="credit_minor")


class TrialBalanceTotalSchema(Answer):
    currency = fields.String(metadata={"description": "ISO 4217"})
    debit = MoneyField(attribute="debit_minor")
    credit = MoneyField(attribute="credit_minor")


class TrialBalanceSchema(Answer):
    lines = fields.List(fields.Nested(TrialBalanceLineSchema))
    totals = fields.List(
        fields.Nested(TrialBalanceTotalSchema), metadata={"description": "by currency; debit equals credit"}
    )


TransactionPageSchema = page_schema(TransactionSchema)


class PeriodQuery(Schema):
    """A period includes its start and excludes its end, so adjacent periods do not overlap."""

    start = Moment(data_key="from", metadata={"description": "at or after this moment"})
    end = Moment(data_key="to", metadata={"description": "before this moment"})

    @validates_schema
    def holds_a_moment(self, data: dict[str, Any], **_: Any) -> None:
        if "start" in data and "end" in data and data["start"] >= data["end"]:
            raise ValidationError([coded("empty_period", "`to` must be later than `from`.")], "to")


class TransactionFilters(PeriodQuery):
    """The filters of a list of transactions. Without filters, all are listed."""

    type = Choice(TYPES)
    order_id = Text(max_length=100, data_key="orderId")


class TransactionListQuery(TransactionFilters, PageQuery):
    """A page of the filtered transactions."""


class OwnTransactionListQuery(TransactionListQuery, CurrencyQuery):
    """The currency selects the member's wallet."""


class PaymentSchema(Schema):
    amount = AmountField(required=True)
    order_id = Text(max_length=100, data_key="orderId")
    description = Text(max_length=500)


class PaymentQuery(Schema):
    dry_run = fields.Boolean(
        data_key="dryRun",
        load_default=False,
        truthy={"true"},
        falsy={"false"},
        error_messages={"invalid": coded("not_a_boolean", "Write true or false.")},
        metadata={"description": "answer with the result, and post nothing"},
    )


class OwnPaymentQuery(PaymentQuery, CurrencyQuery):
    """The currency selects the member's wallet."""


class DepositSchema(Schema):
    amount = AmountField(required=True)
    reference = Text(max_length=200)


class RefundSchema(Schema):
    payment_id = Identifier(required=True, data_key="paymentId")
    amount = AmountField(metadata={"description": "default: the amount of the payment not yet refunded"})


class AdjustmentSchema(Schema):
    amount = AmountField(required=True, allows="not_zero")
    reason = Text(required=True, max_length=500)
