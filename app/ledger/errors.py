"""Refusals of the posting function, by its SQLSTATEs."""

from app.errors import Conflict, Invalid, NotFound
from app.sql_refusals import sql_refusal


@sql_refusal
class InsufficientFunds(Conflict):
    """With `available`, `required` and `shortfall`."""

    code = "insufficient_funds"
    sqlstate = "WA001"
    text = "The wallet's available funds are too low."


@sql_refusal
class RefundExceedsPayment(Conflict):
    """`refundable` is the amount of the payment that is not yet refunded."""

    code = "refund_exceeds_payment"
    sqlstate = "WA004"
    text = "The amount is more than the payment has left to refund."


@sql_refusal
class IdempotencyKeyReused(Invalid):
    """In a bulk, `item` and `walletId` name the item whose wallet has the key; without them the bulk itself has it."""

    code = "idempotency_key_reused"
    sqlstate = "WA005"
    text = "You have used this Idempotency-Key for another request. Use a new key for a new intent."


@sql_refusal
class PaymentNotFound(NotFound):
    code = "payment_not_found"
    sqlstate = "WA007"
    text = "There is no such payment in this wallet."


@sql_refusal
class OrderAlreadyPaid(Conflict):
    """An order is paid once, whatever the Idempotency-Key."""

    code = "order_already_paid"
    sqlstate = "WA012"
    text = "This order is paid already. For another payment use another orderId."


class TransactionNotFound(NotFound):
    """There is no such transaction in the wallet."""

    code = "transaction_not_found"
