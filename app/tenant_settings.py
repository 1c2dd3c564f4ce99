"""The settings that a tenant may have, with their checks, for scripts, operators' routes and requests.

A writer refuses an unknown setting. A reader ignores it, because a newer version of this code may run beside this one.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import marshmallow
from babel import Locale, UnknownLocaleError
from marshmallow import fields, validate

from app.api.fields import REQUIRED, Flag, Schema, coded
from app.api.money_fields import CurrencyField
from app.api.requests import faults_of
from app.config import RATE, RATE_WANTED
from app.errors import Invalid

MAX_INTEGER: Final = 2**31 - 1  # the largest integer of PostgreSQL's settings
MAX_COUNT: Final = 1_000_000
MAX_DAYS: Final = 36_500
DEFAULT_LOCALE: Final = "en"


class LocaleField(fields.String):
    """A locale that Babel knows, stored as bs_BA, also if written bs-BA."""

    default_error_messages = {  # noqa: RUF012  marshmallow's own way
        **dict.fromkeys(("null", "invalid"), coded("not_a_locale", "The locale is unknown; write it like bs_BA.")),
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        name = str(value).replace("-", "_")
        try:
            Locale.parse(name)
        except (UnknownLocaleError, ValueError):
            raise self.make_error("invalid") from None
        return name


class RateField(fields.String):
    """A number of requests per second, minute, hour or day."""

    default_error_messages = {  # noqa: RUF012
        **dict.fromkeys(("null", "invalid"), coded("not_a_rate", f"It {RATE_WANTED}.")),
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(RATE, value, re.ASCII):
            raise self.make_error("invalid")
        return value


class CountField(fields.Integer):
    """A whole number from 1 to `most`. `true`, "5" and 5.0 are refused."""

    default_error_messages = {**REQUIRED, "invalid": coded("not_a_number", "A whole number is needed.")}  # noqa: RUF012

    def __init__(self, most: int, **kwargs: Any) -> None:
        in_range = validate.Range(1, most, error=coded("out_of_range", f"The number must be from 1 to {most}."))
        super().__init__(strict=True, validate=in_range, **kwargs)


class TenantSettingsSchema(Schema):
    """The settings of a tenant. A missing setting has the service's default."""

    currency = CurrencyField(required=True, error_messages=REQUIRED)
    currencies = fields.List(CurrencyField(), error_messages={"invalid": coded("not_a_list", "A list is needed.")})
    locale = LocaleField()
    rate_limit = RateField()
    caller_rate_limit = RateField()
    max_concurrent_requests = CountField(MAX_COUNT)
    max_body_bytes = CountField(MAX_INTEGER)
    statement_timeout_ms = CountField(MAX_INTEGER)
    idle_in_transaction_timeout_ms = CountField(MAX_INTEGER)
    max_connections = CountField(MAX_COUNT)
    former_member_days = CountField(
        MAX_DAYS, metadata={"description": "how long the address and name of a removed member are kept"}
    )
    require_second_factor = Flag(
        metadata={"description": "whether the tenant's staff must log in with a second factor; API keys need none"}
    )


_NEW: Final = TenantSettingsSchema()
_STORED: Final = TenantSettingsSchema(unknown=marshmallow.EXCLUDE)
_CHANGES: Final = TenantSettingsSchema(partial=True)
for _field in _CHANGES.fields.values():
    _field.allow_none = True


def new_settings(told: Mapping[str, Any]) -> dict[str, Any]:
    """The checked settings of a new tenant, as they are stored. Raises Invalid with each fault."""
    return _load(_NEW, told)


def stored_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The checked settings from the registry. Raises Invalid."""
    return _load(_STORED, stored)


def changed_settings(stored: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The checked changes for `registry.change_settings`. None removes a setting, so its default applies.

    Raises Invalid for an invalid change, for a removed currency, and if the resulting settings are invalid.
    """
    told = _load(_CHANGES, changes)
    whole = stored_settings({name: value for name, value in {**stored, **told}.items() if value is not None})
    if whole["currency"] != stored.get("currency", whole["currency"]):
        raise Invalid.at("currency", "currency_kept", "The main currency of a tenant never changes.")
    lost = {*stored.get("currencies", ())} - {whole["currency"], *whole.get("currencies", ())}
    if lost:
        raise Invalid.at(
            "currencies",
            "currency_kept",
            f"A currency can't be removed, because wallets may exist in it: {', '.join(sorted(lost))}.",
        )
    return told


def currencies_of(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The currencies of the tenant's wallets, the main one first; none if the stored settings are invalid."""
    try:
        whole = stored_settings(settings)
    except Invalid:
        return ()
    return tuple(dict.fromkeys((whole["currency"], *whole.get("currencies", ()))))


def locale_of(settings: Mapping[str, Any]) -> Locale:
    """The tenant's locale; English if it is missing or unknown to Babel."""
    return Locale.parse(locale_name_of(settings))


def locale_name_of(settings: Mapping[str, Any]) -> str:
    """The name of the tenant's locale, like bs_BA; that of English if it is missing or unknown to Babel."""
    name = str(settings.get("locale", DEFAULT_LOCALE)).replace("-", "_")
    try:
        Locale.parse(name)
    except (UnknownLocaleError, ValueError):
        return DEFAULT_LOCALE
    return name


def _load(settings_schema: TenantSettingsSchema, settings: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(settings_schema.load(settings))
    except marshmallow.ValidationError as error:
        raise Invalid.of(faults_of(error.messages)) from None
