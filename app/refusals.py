"""Gives the refusals of the tenant's SQL functions their names: SQLSTATE in, error of ours out."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy.exc

from app.errors import ServiceError
from app.holds import errors as holds
from app.ledger import errors as ledger
from app.members import errors as members
from app.money import format_minor
from app.orders import errors as orders
from app.wallets import errors as wallets

REFUSALS: dict[str, tuple[type[ServiceError], str]] = {
    kind.sqlstate: (kind, kind.text)
    for kind in (
        ledger.InsufficientFunds,
        ledger.RefundExceedsPayment,
        ledger.IdempotencyKeyReused,
        ledger.PaymentNotFound,
        ledger.AmountOutOfRange,
        ledger.OrderAlreadyPaid,
        holds.HoldNotFound,
        holds.AlreadyCaptured,
        holds.HoldVoided,
        holds.HoldExpired,
        holds.CaptureExceedsHold,
        holds.ExpiryInThePast,
        orders.OrderEmpty,
        orders.TooManyItems,
        orders.QuantityOutOfRange,
        orders.ProductNotFound,
        orders.ProductWithdrawn,
        orders.ProductWithoutPrice,
        orders.OrderNotFound,
        wallets.WalletNotFound,
        wallets.WalletFrozen,
        wallets.WalletClosed,
        wallets.CreditLimitBelowUsed,
        wallets.CreditLimitAbovePolicy,
        wallets.WalletNotEmpty,
        wallets.WalletVersionMismatch,
    )
}
REFUSALS["WA008"] = (members.MemberNotFound, "There is no such member in this tenant.")


@contextmanager
def named_refusals() -> Iterator[None]:
    """Raise a refusal as the error it stands for; every other error goes on as it is."""
    try:
        yield
    except (psycopg.Error, sqlalchemy.exc.DBAPIError) as error:
        original = error if isinstance(error, psycopg.Error) else error.orig
        if not isinstance(original, psycopg.Error) or original.sqlstate not in REFUSALS:
            raise
        raise refusal(original.sqlstate, original.diag.message_detail) from error


def refusal(sqlstate: str, detail: str | None) -> ServiceError:
    """The error that a refusal with this SQLSTATE and detail stands for."""
    kind, text = REFUSALS[sqlstate]
    return kind(text, _members(detail))


def _members(detail: str | None) -> dict[str, Any]:
    """The detail of a refusal is JSON; PostgreSQL's own errors have a sentence there, or nothing. If it names a
    currency, its numbers are amounts in the minor unit of that, but for `item`, a place in a list.
    """
    if not detail or not detail.startswith("{"):
        return {}
    told = json.loads(detail)
    currency = told.get("currency")
    return {
        name: format_minor(value, currency) if currency and isinstance(value, int) and name != "item" else value
        for name, value in told.items()
    }
