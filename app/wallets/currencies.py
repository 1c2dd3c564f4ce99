"""In which currencies a tenant keeps wallets, and which of them a request means. A wallet keeps one, for ever."""

from typing import Any

from app.api.fields import Schema
from app.api.money_fields import CurrencyField
from app.errors import Invalid, Place
from tenant_schemas.context import current_tenant


def main_currency() -> str:
    """The bound tenant's main currency (ISO 4217)."""
    return str(current_tenant().settings["currency"])


def allowed_currencies() -> tuple[str, ...]:
    """The bound tenant's currencies, the main one first. `wallet_open_v3` has the same rule."""
    main = main_currency()
    return (main, *(str(code) for code in current_tenant().settings.get("currencies", ()) if code != main))


def chosen_currency(told: dict[str, Any], place: Place = "query") -> str:
    """The currency that a query or body names, or else the main one. Raises Invalid for one the tenant has not."""
    main = str(current_tenant().settings["currency"])
    code = str(told.get("currency", main))
    if code != main and code not in allowed_currencies():
        allowed = ", ".join(allowed_currencies())
        raise Invalid.at("currency", "currency_not_allowed", f"This tenant has wallets in {allowed}.", place)
    return code


class CurrencyQuery(Schema):
    currency = CurrencyField()
