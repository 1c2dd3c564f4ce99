"""What can go wrong when money is posted, by the SQLSTATE with which the posting function refuses."""

from app.errors import Conflict, Invalid, NotFound
from app.refusals import sql_refusal


@sql_refusal
class InsufficientFunds(Conflict):
    """`available`, `required` and `shortfall` explain it."""

    code = "insufficient_funds"
    sqlstate = "WA001"
    text = "The wallet does not hold enough."


@sql_refusal
class RefundExceedsPayment(Conflict):
    """`refundable` is what is left of the payment."""

    code = "refund_exceeds_payment"
    sqlstate = "WA004"
    text = "That is more than is left of the payment to refund."


@sql_refusal
class IdempotencyKeyReused(Invalid):
    code = "idempotency_key_reused"
    sqlstate = "WA005"
    text = "This Idempotency-Key was used for another request on this wallet. Use a new key for a new intent."


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
    text = "This order was paid. To pay something else, use another orderId."


class TransactionNotFound(NotFound):
    code = "transaction_not_found"


@sql_refusal
class AmountOutOfRange(Invalid):
    """The balance would leave what a bigint holds."""

    code = "amount_out_of_range"
    sqlstate = "22003"
    text = "With this amount the balance would be larger than can be kept."
