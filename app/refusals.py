"""Gives the refusals of the tenant's SQL functions their names: SQLSTATE in, error of ours out."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy.exc

from app.errors import ServiceError
from app.ledger import errors as ledger
from app.members import errors as members
from app.money import format_minor
from app.wallets import errors as wallets

REFUSALS: dict[str, tuple[type[ServiceError], str]] = {
    kind.sqlstate: (kind, kind.text)
    for kind in (
        ledger.InsufficientFunds,
        ledger.RefundExceedsPayment,
        ledger.IdempotencyKeyReused,
        ledger.PaymentNotFound,
        ledger.AmountOutOfRange,
        wallets.WalletNotFound,
        wallets.WalletFrozen,
        wallets.WalletClosed,
        wallets.CreditLimitBelowUsed,
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
        named = _named(original) if isinstance(original, psycopg.Error) else None
        if named is None:
            raise
        raise named from error


def _named(error: psycopg.Error) -> ServiceError | None:
    known = REFUSALS.get(error.sqlstate or "")
    if known is None:
        return None
    kind, text = known
    return kind(text, _members(error.diag.message_detail) if error.sqlstate and error.sqlstate[:2] == "WA" else {})


def _members(detail: str | None) -> dict[str, Any]:
    """The detail of a refusal is JSON: a currency, and amounts in its minor unit."""
    if not detail:
        return {}
    told = json.loads(detail)
    currency = told.pop("currency")
    return {"currency": currency, **{name: format_minor(minor, currency) for name, minor in told.items()}}
