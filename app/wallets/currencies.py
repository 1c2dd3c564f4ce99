"""In which currencies a tenant keeps wallets, and which of them a request means. A wallet keeps one, for ever."""

from typing import Any

from marshmallow import fields

from app.api.fields import Schema, coded
from app.errors import Invalid
from app.money import fraction_digits
from tenant_schemas.context import current_tenant


def main_currency() -> str:
    """The bound tenant's main currency (ISO 4217)."""
    return str(current_tenant().settings["currency"])


def allowed_currencies() -> tuple[str, ...]:
    """The bound tenant's currencies, the main one first. `wallet_open_v2` has the same rule."""
    main = main_currency()
    return (main, *(str(code) for code in current_tenant().settings.get("currencies", ()) if code != main))


def chosen_currency(told: dict[str, Any]) -> str:
    """The currency that a query or body names, or else the main one. Raises Invalid for one the tenant has not."""
    code = str(told.get("currency", main_currency()))
    allowed = allowed_currencies()
    if code not in allowed:
        raise Invalid.at("currency", "currency_not_allowed", f"This tenant has wallets in {', '.join(allowed)}.")
    return code


class CurrencyField(fields.String):
    """A code of ISO 4217 that has a minor unit."""

    default_error_messages = {  # noqa: RUF012  marshmallow's own way
        "null": coded("not_a_currency", "A currency is needed, as an ISO 4217 code like EUR."),
        "invalid": coded("not_a_currency", "A currency is needed, as an ISO 4217 code like EUR."),
    }

    def __init__(self, **kwargs: Any) -> None:
        about = {"pattern": "^[A-Z]{3}$", "description": "ISO 4217; the tenant's main currency if not given"}
        super().__init__(metadata=about, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        try:
            fraction_digits(value)
        except (ValueError, TypeError):
            raise self.make_error("invalid") from None
        return str(value)


class CurrencyQuery(Schema):
    currency = CurrencyField()
