"""Events as they are sent: CloudEvents 1.0 in structured mode. These schemas describe them in OpenAPI; `app/events`
writes them. A thin event has ids and proofs only.
"""

from typing import Final

from marshmallow import fields

from app.api.fields import Answer, Moment, Word, Words
from app.api.money_fields import MoneyField
from app.events.models import EVENT_TYPES
from app.events.schemas import EnvelopeSchema

MOVEMENT_TYPES: Final = Words("MovementEventType", *(each for each in EVENT_TYPES if each.endswith(".posted.v1")))
WALLET_TYPES: Final = Words(
    "WalletEventType",
    *(each for each in EVENT_TYPES if each.startswith("wallet.") and each not in MOVEMENT_TYPES),
)
HOLD_TYPES: Final = Words("HoldEventType", *(each for each in EVENT_TYPES if each.startswith("hold.")))
ORDER_TYPES: Final = Words("OrderEventType", *(each for each in EVENT_TYPES if each.startswith("order.")))
_CURRENCY: Final = {"description": "ISO 4217"}
_HASH: Final = {"pattern": "^[0-9a-f]{64}$"}


class _EventSchema(EnvelopeSchema):
    """The members that all events have. Consumers must take members that they do not know."""

    may_lack = ("sequence", "replay", "partitionkey", "traceparent")

    id = fields.UUID(metadata={"description": "the header webhook-id; one event keeps it however often it is sent"})
    time = Moment(metadata={"description": "when it happened"})
    replay = fields.Boolean(metadata={"description": "true: made again from the ledger, without a position"})


class MovementDataSchema(Answer):
    """A movement of money. Each `previousHash` is the `hash` of the wallet's movement before, so that a consumer can
    prove that it missed none.
    """

    may_lack = (
        *("amount", "currency", "balance_after", "order_id", "payment_id", "hold_id", "admin_id"),
        *("description", "reference", "reason"),
    )

    wallet_id = fields.UUID(data_key="walletId")
    transaction_id = fields.UUID(data_key="transactionId")
    seq = fields.Integer(metadata={"description": "numbers the wallet's movements from 1, without gaps"})
    amount = MoneyField(metadata={"description": "what it adds to the balance"})
    currency = fields.String(metadata=_CURRENCY)
    balance_after = MoneyField(data_key="balanceAfter")
    order_id = fields.String(data_key="orderId", allow_none=True)
    payment_id = fields.UUID(data_key="paymentId", allow_none=True, metadata={"description": "that it refunds"})
    hold_id = fields.UUID(data_key="holdId", allow_none=True, metadata={"description": "that it captures"})
    admin_id = fields.UUID(data_key="adminId", allow_none=True)
    description = fields.String(allow_none=True)
    reference = fields.String(allow_none=True)
    reason = fields.String(allow_none=True)
    hash = fields.String(metadata=_HASH)
    previous_hash = fields.String(data_key="previousHash", metadata=_HASH)


class WalletDataSchema(Answer):
    """A wallet that was opened or changed."""

    may_lack = ("status", "currency", "credit_limit", "credit_limit_before")

    wallet_id = fields.UUID(data_key="walletId")
    user_id = fields.UUID(data_key="userId")
    status = fields.String()
    currency = fields.String(metadata=_CURRENCY)
    credit_limit = MoneyField(data_key="creditLimit")
    credit_limit_before = MoneyField(data_key="creditLimitBefore", allow_none=True)


class HoldDataSchema(Answer):
    """A hold that was made or changed."""

    may_lack = ("status", "amount", "captured", "currency", "order_id", "description", "expires_at")

    wallet_id = fields.UUID(data_key="walletId")
    hold_id = fields.UUID(data_key="holdId")
    status = fields.String()
    amount = MoneyField()
    captured = MoneyField()
    currency = fields.String(metadata=_CURRENCY)
    order_id = fields.String(data_key="orderId", allow_none=True)
    description = fields.String(allow_none=True)
    expires_at = Moment(data_key="expiresAt")


class OrderDataSchema(Answer):
    """An order that was placed or cancelled."""

    may_lack = ("status", "total", "currency", "refund_id")

    wallet_id = fields.UUID(data_key="walletId")
    order_id = fields.UUID(data_key="orderId")
    user_id = fields.UUID(data_key="userId")
    status = fields.String()
    total = MoneyField()
    currency = fields.String(metadata=_CURRENCY)
    payment_id = fields.UUID(data_key="paymentId")
    refund_id = fields.UUID(data_key="refundId", allow_none=True)


class MovementEventSchema(_EventSchema):
    type = Word(MOVEMENT_TYPES)
    data = fields.Nested(MovementDataSchema)


class WalletEventSchema(_EventSchema):
    type = Word(WALLET_TYPES)
    data = fields.Nested(WalletDataSchema)


class HoldEventSchema(_EventSchema):
    type = Word(HOLD_TYPES)
    data = fields.Nested(HoldDataSchema)


class OrderEventSchema(_EventSchema):
    type = Word(ORDER_TYPES)
    data = fields.Nested(OrderDataSchema)


SCHEMAS: Final = {
    "MovementEvent": (MovementEventSchema, MOVEMENT_TYPES),
    "WalletEvent": (WalletEventSchema, WALLET_TYPES),
    "HoldEvent": (HoldEventSchema, HOLD_TYPES),
    "OrderEvent": (OrderEventSchema, ORDER_TYPES),
}
