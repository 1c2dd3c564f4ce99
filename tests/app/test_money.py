"""Amounts are exact or refused: through every door of app/money.py, for currencies with 0, 2 and 3 digits."""

from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marshmallow import ValidationError

from app.api.fields import Schema
from app.api.money_fields import AmountField, MoneyField
from app.errors import Invalid
from app.money import MAX_MINOR, format_minor, fraction_digits, to_minor

CURRENCIES = {"EUR": 2, "BAM": 2, "JPY": 0, "KWD": 3}
OVER_CURRENCIES = pytest.mark.parametrize("currency", CURRENCIES)
MINOR = st.integers(-MAX_MINOR, MAX_MINOR)
CURRENCY = st.sampled_from(sorted(CURRENCIES))
QUICK = settings(max_examples=150, deadline=None, database=None)


class AnyAmountSchema(Schema):
    amount = AmountField(required=True, allows="zero_or_more")
    signed = AmountField(allows="not_zero")


SCHEMA = AnyAmountSchema()


def parsed(text: str) -> Decimal:
    """As a request is read."""
    name = "signed" if text.startswith("-") else "amount"
    loaded: dict[str, Decimal] = SCHEMA.load({"amount": "0", name: text})
    return loaded[name]


def test_the_digits_are_those_of_iso_4217() -> None:
    assert {currency: fraction_digits(currency) for currency in CURRENCIES} == CURRENCIES
    for unknown in ("XAU", "XXX", "EURO", "eur", ""):
        with pytest.raises(ValueError):
            fraction_digits(unknown)


@QUICK
@given(minor=MINOR, currency=CURRENCY)
def test_what_is_written_is_read_back_as_it_was(minor: int, currency: str) -> None:
    assert to_minor(parsed(format_minor(minor, currency)), currency) == minor


@QUICK
@given(minor=MINOR, currency=CURRENCY)
def test_what_is_written_is_exact_and_has_the_currencys_digits(minor: int, currency: str) -> None:
    written = format_minor(minor, currency)
    _, _, fraction = written.partition(".")
    assert len(fraction) == CURRENCIES[currency]
    with localcontext(prec=60):
        assert Decimal(written) * 10 ** CURRENCIES[currency] == minor
    assert written.startswith("-") == (minor < 0)


@pytest.mark.parametrize(
    ("minor", "currency", "written"),
    [
        (0, "EUR", "0.00"),
        (1, "EUR", "0.01"),
        (-1, "EUR", "-0.01"),
        (-100, "BAM", "-1.00"),
        (1250, "EUR", "12.50"),
        (MAX_MINOR, "EUR", "92233720368547758.07"),
        (-MAX_MINOR - 1, "EUR", "-92233720368547758.08"),
        (0, "JPY", "0"),
        (-5, "JPY", "-5"),
        (MAX_MINOR, "JPY", "9223372036854775807"),
        (1, "KWD", "0.001"),
        (-1234567, "KWD", "-1234.567"),
    ],
)
def test_an_amount_is_written_like_this(minor: int, currency: str, written: str) -> None:
    assert format_minor(minor, currency) == written


@QUICK
@given(
    whole=st.integers(0, 10**19),
    fraction=st.text("0123456789", max_size=10),
    sign=st.sampled_from(["", "-"]),
    currency=CURRENCY,
)
def test_an_amount_that_is_taken_is_the_amount_that_was_sent(
    whole: int, fraction: str, sign: str, currency: str
) -> None:
    """Checked against integers alone: exact, or refused for the one right reason. A zero too many is a digit too."""
    digits = CURRENCIES[currency]
    minor = int(f"{whole}{fraction[:digits].ljust(digits, '0')}")
    amount = Decimal(f"{sign}{whole}" + (f".{fraction}" if fraction else ""))
    expected: Any = "too_many_fraction_digits" if len(fraction) > digits else -minor if sign else minor
    if isinstance(expected, int) and minor > MAX_MINOR:
        expected = "amount_out_of_range"
    try:
        taken: Any = to_minor(amount, currency)
    except Invalid as refusal:
        (fault,) = refusal.members["errors"]
        taken = fault["code"]
    assert taken == expected


@pytest.mark.parametrize(
    ("text", "currency"),
    [
        ("1.005", "EUR"),
        ("1.000", "EUR"),
        ("0.001", "BAM"),
        ("5.0", "JPY"),
        ("0.5", "JPY"),
        ("1.0005", "KWD"),
        ("92233720368547758.0000000001", "EUR"),
        ("9223372036854775.0000000001", "KWD"),
        ("9223372036854775807.0000000001", "JPY"),
        ("1000000000000000000.0000000001", "JPY"),
    ],
)
def test_too_many_digits_are_refused_however_many_there_are_before_them(text: str, currency: str) -> None:
    """29 digits are more than Python's default decimal context keeps."""
    for sign in ("", "-"):
        with pytest.raises(Invalid) as refusal:
            to_minor(parsed(sign + text), currency)
        (fault,) = refusal.value.members["errors"]
        assert (fault["field"], fault["code"]) == ("amount", "too_many_fraction_digits")


@OVER_CURRENCIES
def test_the_bounds_are_those_of_bigint(currency: str) -> None:
    for minor in (MAX_MINOR, -MAX_MINOR):
        assert to_minor(parsed(format_minor(minor, currency)), currency) == minor
    for minor in (MAX_MINOR + 1, -MAX_MINOR - 1, 10**38):
        with pytest.raises(Invalid) as refusal:
            to_minor(parsed(format_minor(minor, currency)), currency, "creditLimit")
        (fault,) = refusal.value.members["errors"]
        assert (fault["field"], fault["code"]) == ("creditLimit", "amount_out_of_range")
        assert format_minor(MAX_MINOR, currency) in fault["message"]


@QUICK
@given(text=st.text(st.characters(categories=["N", "P", "S", "Z"]), max_size=12))
def test_nothing_but_plain_ascii_decimals_is_read(text: str) -> None:
    try:
        amount = parsed(text)
    except ValidationError:
        return
    assert set(text) <= set("-.0123456789")
    assert str(amount) == text


@pytest.mark.parametrize("value", [1, 1.5, True, None, Decimal("1.50"), ["1.50"], {"amount": "1.50"}, b"1.50"])
def test_nothing_but_a_string_is_read(value: Any) -> None:
    with pytest.raises(ValidationError):
        SCHEMA.load({"amount": value})


@OVER_CURRENCIES
def test_an_answer_writes_the_amount_in_the_objects_own_currency(currency: str) -> None:
    class Thing:
        def __init__(self, amount_minor: int | None) -> None:
            self.amount_minor, self.currency = amount_minor, currency

    class ThingSchema(Schema):
        amount = MoneyField(attribute="amount_minor")

    assert ThingSchema().dump(Thing(-12345)) == {"amount": format_minor(-12345, currency)}
    assert ThingSchema().dump(Thing(None)) == {"amount": None}
