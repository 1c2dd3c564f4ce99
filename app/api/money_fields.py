"""Fields for amounts and currencies: decimal strings in requests and answers, never JSON numbers."""

import re
from decimal import Decimal
from typing import Any, Literal

from marshmallow import fields

from app.api.fields import coded
from app.money import format_minor, fraction_digits

_AMOUNT = re.compile(r"(-?)(0|[1-9][0-9]{0,39})(?:\.([0-9]{1,10}))?", re.ASCII)


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
    """An amount in an answer. The attribute holds minor units; the object's `currency` gives the fraction digits."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else format_minor(value, obj.currency)


class CurrencyField(fields.String):
    """An ISO 4217 code of a currency with a minor unit."""

    default_error_messages = {  # noqa: RUF012  marshmallow's own way
        "null": coded("not_a_currency", "A currency is needed, as an ISO 4217 code like EUR."),
        "invalid": coded("not_a_currency", "A currency is needed, as an ISO 4217 code like EUR."),
    }

    def __init__(
        self, *, description: str = "ISO 4217; the tenant's main currency if not given", **kwargs: Any
    ) -> None:
        about = {"pattern": "^[A-Z]{3}$", "description": description}
        super().__init__(metadata=about, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        try:
            fraction_digits(value)
        except (ValueError, TypeError):
            raise self.make_error("invalid") from None
        return str(value)


AMOUNT_PATTERN = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$"


# The patterns for request bodies, without look-ahead, which several languages' regular expressions lack.
_NOT_ZERO = r"(0\.0{0,9}[1-9][0-9]{0,9}|[1-9][0-9]{0,39}(\.[0-9]{1,10})?)"


_PATTERNS = {
    "positive": f"^{_NOT_ZERO}$",
    "not_zero": f"^-?{_NOT_ZERO}$",
    "zero_or_more": r"^(0|[1-9][0-9]{0,39})(\.[0-9]{1,10})?$",
}


def amount_openapi(self: Any, field: fields.Field[Any], **_: Any) -> dict[str, Any]:
    """The OpenAPI description of both fields: a string with a pattern, never a number."""
    if not isinstance(field, AmountField | MoneyField):
        return {}
    pattern = _PATTERNS[field.allows] if isinstance(field, AmountField) else AMOUNT_PATTERN
    type_ = ["string", "null"] if field.allow_none else "string"
    return {"type": type_, "format": "decimal", "pattern": pattern, "examples": ["12.50"]}
