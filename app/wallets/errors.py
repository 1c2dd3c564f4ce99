"""Refusals of wallets, by the SQLSTATEs of their SQL functions."""

from app.errors import Conflict, Invalid, NotFound, PreconditionFailed
from app.sql_refusals import sql_refusal


@sql_refusal
class WalletNotFound(NotFound):
    code = "wallet_not_found"
    sqlstate = "WA006"
    text = "There is no such wallet here."


@sql_refusal
class WalletFrozen(Conflict):
    code = "wallet_frozen"
    sqlstate = "WA002"
    text = "The wallet is frozen: payments and holds are blocked."


@sql_refusal
class WalletClosed(Conflict):
    code = "wallet_closed"
    sqlstate = "WA003"
    text = "The wallet is closed for good."


@sql_refusal
class CreditLimitBelowUsed(Conflict):
    code = "credit_limit_below_used"
    sqlstate = "WA009"
    text = "The credit limit can't be lower than used credit plus holds."


@sql_refusal
class CreditLimitAbovePolicy(Conflict):
    """`maxLimit` is the ceiling of the tenant's policy."""

    code = "credit_limit_above_policy"
    sqlstate = "WA019"
    text = "The tenant's credit policy allows no limit that high."


@sql_refusal
class WalletNotEmpty(Conflict):
    code = "wallet_not_empty"
    sqlstate = "WA010"
    text = "A wallet can be closed only with a balance of zero and without active holds."


@sql_refusal
class WalletVersionMismatch(PreconditionFailed):
    sqlstate = "WA011"
    text = "The wallet's limit or status has changed since; read the wallet again."


@sql_refusal
class AmountOutOfRange(Invalid):
    """The new balance, or the balance with the credit limit, would exceed a bigint."""

    code = "amount_out_of_range"
    sqlstate = "22003"
    text = "With this amount the balance would exceed the largest amount that can be stored."
