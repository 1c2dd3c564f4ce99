"""Amounts: integers of the currency's minor unit inside, decimal strings outside, floats nowhere."""

import re
from decimal import Decimal
from functools import cache
from typing import Any, Literal

from iso4217 import Currency
from marshmallow import fields

from app.api.fields import coded
from app.errors import Invalid

MAX_MINOR = 2**63 - 1  # PostgreSQL's bigint
_AMOUNT = re.compile(r"(-?)(0|[1-9][0-9]{0,39})(?:\.([0-9]{1,10}))?", re.ASCII)


@cache
def fraction_digits(currency: str) -> int:
    """How many digits ISO 4217 gives the currency's minor unit: 2 for EUR, 0 for JPY, 3 for KWD. Raises ValueError."""
    exponent = Currency(currency).exponent
    if exponent is None:
        raise ValueError(f"{currency} has no minor unit in ISO 4217; wallets can't be kept in it.")
    return int(exponent)


def format_minor(amount_minor: int, currency: str) -> str:
    """`1250, "EUR"` is "12.50"."""
    digits = fraction_digits(currency)
    if not digits:
        return str(amount_minor)
    whole, fraction = divmod(abs(amount_minor), 10**digits)
    return f"{'-' if amount_minor < 0 else ''}{whole}.{fraction:0{digits}d}"


def to_minor(amount: Decimal, currency: str, field: str = "amount") -> int:
    """Exact or not at all. Raises Invalid for more fraction digits than the currency has, or more than bigint holds."""
    digits = fraction_digits(currency)
    sign, figures, exponent = amount.as_tuple()
    if not isinstance(exponent, int) or -exponent > digits:
        raise Invalid.at(field, "too_many_fraction_digits", f"{currency} has {digits} fraction digits.")
    minor = int("".join(map(str, figures))) * int(10 ** (digits + exponent)) * (-1 if sign else 1)
    if abs(minor) > MAX_MINOR:
        limit = format_minor(MAX_MINOR, currency)
        raise Invalid.at(field, "amount_out_of_range", f"The largest amount is {limit} {currency}.")
    return minor


class AmountField(fields.Field[Decimal]):
    """An amount in a request body: a decimal string, above zero unless `allows` says otherwise."""

    default_error_messages = {  # noqa: RUF012  marshmallow's own way
        "required": coded("required", 'An amount is needed, as a decimal string like "12.50".'),
        "null": coded("required", 'An amount is needed, as a decimal string like "12.50".'),
        "not_a_string": coded("amount_not_a_string", 'Send the amount as a string like "12.50", not as a number.'),
        "not_an_amount": coded("not_an_amount", 'Write digits with at most one point, like "12.50".'),
        "not_positive": coded("amount_not_positive", "The amount must be above zero."),
        "negative": coded("amount_negative", "The amount must not be below zero."),
        "zero": coded("amount_zero", "The amount must not be zero."),
    }

    def __init__(self, *, allows: Literal["positive", "zero_or_more", "not_zero"] = "positive", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.allows = allows

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Decimal:
        if not isinstance(value, str):
            raise self.make_error("not_a_string")
        if not _AMOUNT.fullmatch(value):
            raise self.make_error("not_an_amount")
        amount = Decimal(value)
        if self.allows == "positive" and amount <= 0:
            raise self.make_error("not_positive")
        if self.allows == "zero_or_more" and amount < 0:
            raise self.make_error("negative")
        if self.allows == "not_zero" and amount == 0:
            raise self.make_error("zero")
        return amount


class MoneyField(fields.Field[str]):
    """An amount in an answer. The attribute holds minor units; the object says in which currency."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else format_minor(value, obj.currency)


AMOUNT_PATTERN = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$"
# What a body may have. No look-ahead, which the regular expressions of several languages lack.
_NOT_ZERO = r"(0\.0{0,9}[1-9][0-9]{0,9}|[1-9][0-9]{0,39}(\.[0-9]{1,10})?)"
_PATTERNS = {
    "positive": f"^{_NOT_ZERO}$",
    "not_zero": f"^-?{_NOT_ZERO}$",
    "zero_or_more": r"^(0|[1-9][0-9]{0,39})(\.[0-9]{1,10})?$",
}


def amount_openapi(self: Any, field: fields.Field[Any], **_: Any) -> dict[str, Any]:
    """How both fields look in OpenAPI: a string with a pattern, never a number."""
    if not isinstance(field, AmountField | MoneyField):
        return {}
    pattern = _PATTERNS[field.allows] if isinstance(field, AmountField) else AMOUNT_PATTERN
    type_ = ["string", "null"] if field.allow_none else "string"
    return {"type": type_, "format": "decimal", "pattern": pattern, "examples": ["12.50"]}
