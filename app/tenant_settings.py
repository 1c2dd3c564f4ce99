"""What the settings of a tenant may say: the one truth for scripts, for the operator's routes and for requests.

Whatever writes settings refuses names that are not here. Whatever reads them passes over such names, for they may be
those of a later revision of this code that runs beside it.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import marshmallow
from babel import Locale, UnknownLocaleError
from marshmallow import fields, validate

from app.api.fields import REQUIRED, Schema, coded
from app.api.money_fields import CurrencyField
from app.api.requests import faults_of
from app.config import RATE, RATE_WANTED
from app.errors import Invalid

MAX_INTEGER: Final = 2**31 - 1  # of PostgreSQL's settings
MAX_COUNT: Final = 1_000_000


class LocaleField(fields.String):
    """A locale that Babel knows. It is kept as bs_BA, also if it was written bs-BA."""

    default_error_messages = {  # noqa: RUF012  marshmallow's own way
        **dict.fromkeys(("null", "invalid"), coded("not_a_locale", "There is no such locale; write it like bs_BA.")),
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        name = str(value).replace("-", "_")
        try:
            Locale.parse(name)
        except (UnknownLocaleError, ValueError):
            raise self.make_error("invalid") from None
        return name


class RateField(fields.String):
    """So many requests in a second, a minute, an hour or a day."""

    default_error_messages = {  # noqa: RUF012
        **dict.fromkeys(("null", "invalid"), coded("not_a_rate", f"It {RATE_WANTED}.")),
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(RATE, value, re.ASCII):
            raise self.make_error("invalid")
        return value


class CountField(fields.Integer):
    """A whole number from 1 to `most`. Neither `true` nor "5" nor 5.0 is one."""

    default_error_messages = {**REQUIRED, "invalid": coded("not_a_number", "A whole number is needed.")}  # noqa: RUF012

    def __init__(self, most: int, **kwargs: Any) -> None:
        in_range = validate.Range(1, most, error=coded("out_of_range", f"It must be 1 to {most}."))
        super().__init__(strict=True, validate=in_range, **kwargs)


class TenantSettingsSchema(Schema):
    """The settings of a tenant. What is not set has the service's default."""

    currency = CurrencyField(required=True, error_messages=REQUIRED)
    currencies = fields.List(CurrencyField(), error_messages={"invalid": coded("not_a_list", "A list is needed.")})
    locale = LocaleField()
    rate_limit = RateField()
    max_concurrent_requests = CountField(MAX_COUNT)
    max_body_bytes = CountField(MAX_INTEGER)
    statement_timeout_ms = CountField(MAX_INTEGER)
    idle_in_transaction_timeout_ms = CountField(MAX_INTEGER)
    max_connections = CountField(MAX_COUNT)


_NEW: Final = TenantSettingsSchema()
_STORED: Final = TenantSettingsSchema(unknown=marshmallow.EXCLUDE)
_CHANGES: Final = TenantSettingsSchema(partial=True)
for _field in _CHANGES.fields.values():
    _field.allow_none = True


def new_settings(told: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a tenant that is to be made, as they are to be stored. Raises Invalid, which names each fault."""
    return _load(_NEW, told)


def stored_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Settings out of the registry, checked. Raises Invalid."""
    return _load(_STORED, stored)


def changed_settings(stored: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes as `registry.change_settings` takes them: None takes a setting away, so that the default counts.

    Raises Invalid if one of them is wrong, if it takes a currency away, or if what comes of it is not whole.
    """
    told = _load(_CHANGES, changes)
    whole = stored_settings({name: value for name, value in {**stored, **told}.items() if value is not None})
    if whole["currency"] != stored.get("currency", whole["currency"]):
        raise Invalid.at("currency", "currency_kept", "The main currency of a tenant never changes.")
    lost = {*stored.get("currencies", ())} - {whole["currency"], *whole.get("currencies", ())}
    if lost:
        raise Invalid.at("currencies", "currency_kept", f"Wallets may be kept in {', '.join(sorted(lost))}.")
    return told


def _load(settings_schema: TenantSettingsSchema, settings: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(settings_schema.load(settings))
    except marshmallow.ValidationError as error:
        raise Invalid.of(faults_of(error.messages)) from None
