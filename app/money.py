"""Amounts: integers of the currency's minor unit in the database, decimal strings on the wire, never floats."""

from decimal import Decimal
from functools import cache

from iso4217 import Currency

from app.errors import Invalid

MAX_MINOR = 2**63 - 1  # PostgreSQL's bigint


@cache
def fraction_digits(currency: str) -> int:
    """The number of fraction digits of a currency by ISO 4217: 2 for EUR, 0 for JPY, 3 for KWD. Raises ValueError."""
    exponent = Currency(currency).exponent
    if exponent is None:
        raise ValueError(f"{currency} has no minor unit in ISO 4217, so no wallet can have it.")
    return int(exponent)


def format_minor(amount_minor: int, currency: str) -> str:
    """An amount of minor units as a decimal string: `1250, "EUR"` is "12.50"."""
    digits = fraction_digits(currency)
    if not digits:
        return str(amount_minor)
    whole, fraction = divmod(abs(amount_minor), 10**digits)
    return f"{'-' if amount_minor < 0 else ''}{whole}.{fraction:0{digits}d}"


def to_minor(amount: Decimal, currency: str, field: str = "amount") -> int:
    """An amount in minor units, exactly. Raises Invalid for more fraction digits than the currency has, or more than a
    bigint holds.
    """
    digits = fraction_digits(currency)
    sign, figures, exponent = amount.as_tuple()
    if not isinstance(exponent, int) or -exponent > digits:
        raise Invalid.at(field, "too_many_fraction_digits", f"{currency} has {digits} fraction digits.")
    minor = int("".join(map(str, figures))) * int(10 ** (digits + exponent)) * (-1 if sign else 1)
    if abs(minor) > MAX_MINOR:
        limit = format_minor(MAX_MINOR, currency)
        raise Invalid.at(field, "amount_out_of_range", f"The largest amount is {limit} {currency}.")
    return minor
