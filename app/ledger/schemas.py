"""Wallet transactions on the wire."""

from marshmallow import fields

from app.api.dry_runs import DryRunQuery, MayBeDryRun
from app.api.fields import Answer, Choice, Identifier, Moment, PeriodQuery, Schema, Text, Word, Words
from app.api.money_fields import AmountField, CurrencyField, MoneyField
from app.api.pagination import CountedPageQuery, PageQuery, counted_page_schema, page_schema
from app.api.text_fields import LedgerText
from app.auth.schemas import ActorSchema
from app.users.schemas import PersonSchema
from app.wallets.currencies import CurrencyQuery
from tenant_schemas.context import current_tenant

TYPES = Words("TransactionType", "deposit", "payment", "refund", "adjustment", "opening")


class TransactionSchema(Answer):
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
        metadata={
            "description": "of a payment: what is left of it to refund; in the answer to a refund: what it left of its"
            " payment; null for other movements"
        },
    )
    created_at = Moment(data_key="createdAt")


class PostedTransactionSchema(TransactionSchema, MayBeDryRun):
    """A movement that the request posted, or would post."""


class EntrySchema(Answer):
    entry_no = fields.Integer(data_key="entryNo")
    debit_account = fields.String(data_key="debitAccount")
    credit_account = fields.String(data_key="creditAccount")
    amount = MoneyField(attribute="amount_minor")


class TransactionWithEntriesSchema(TransactionSchema):
    entries = fields.List(fields.Nested(EntrySchema))


class StaffTransactionSchema(TransactionSchema):
    """A transaction for staff, with the wallet's member and the actor."""

    owner = fields.Nested(PersonSchema)
    actor = fields.Nested(
        ActorSchema, allow_none=True, metadata={"description": "of `adminId`; null for the member's own movement"}
    )


class StaffTransactionWithEntriesSchema(StaffTransactionSchema):
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
StaffTransactionPageSchema = counted_page_schema(StaffTransactionSchema)


class TransactionFilters(PeriodQuery):
    """The filters of a list of transactions. Without filters, all are listed."""

    type = Choice(TYPES)
    order_id = Text(max_length=100, data_key="orderId")
    least = AmountField(
        allows="zero_or_more", data_key="minAmount", metadata={"description": "the least size, without the sign"}
    )
    most = AmountField(
        allows="zero_or_more", data_key="maxAmount", metadata={"description": "the greatest size, without the sign"}
    )
    reference = Text(max_length=200, description="the whole reference")
    text = Text(max_length=100, data_key="q", description="part of the description, the reference or the reason")


class OwnTransactionListQuery(TransactionFilters, PageQuery, CurrencyQuery):
    """The currency selects the member's wallet."""


class StaffTransactionFilters(TransactionFilters):
    actor_id = Identifier(data_key="actorId", metadata={"description": "an `adminId`: who moved the member's money"})


class TransactionListQuery(StaffTransactionFilters, CountedPageQuery):
    """A page of a wallet's filtered transactions."""


class TenantTransactionFilters(StaffTransactionFilters):
    currency = CurrencyField(
        description="ISO 4217; without it all currencies, or with `minAmount` or `maxAmount` the tenant's main one"
    )


class TenantTransactionListQuery(TenantTransactionFilters, CountedPageQuery):
    """A page of the tenant's filtered transactions."""


class PaymentSchema(Schema):
    amount = AmountField(required=True)
    order_id = LedgerText(max_length=100, data_key="orderId")
    description = LedgerText(max_length=500)


class OwnDryRunQuery(DryRunQuery, CurrencyQuery):
    """The currency selects the member's wallet."""


class DepositSchema(Schema):
    amount = AmountField(required=True)
    reference = LedgerText(max_length=200)


class RefundSchema(Schema):
    payment_id = Identifier(required=True, data_key="paymentId")
    amount = AmountField(metadata={"description": "default: the amount of the payment not yet refunded"})


class AdjustmentSchema(Schema):
    amount = AmountField(required=True, allows="not_zero")
    reason = LedgerText(required=True, max_length=500)
