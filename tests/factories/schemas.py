"""All schemas of the application, and generated data for them: mostly right, and sometimes anything else."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from hypothesis import strategies as st
from marshmallow import fields, missing

import app as _application  # noqa: F401  It imports all schemas.
from app.api.fields import Choice, OneOf, Schema
from app.api.money_fields import AmountField, CurrencyField, MoneyField
from app.api.pagination import LimitField
from app.tenant_settings import CountField, LocaleField, RateField

Generated = st.SearchStrategy[Any]


class Word(StrEnum):
    ONE = "one"


ID: Final = "6f1d9f7e-8b1a-4f63-9a57-0d7a2b5f3c11"
MOMENT: Final = "2026-01-31T12:00:00Z"
# A value that each kind of field reads. The first kind that fits counts.
READ: Final[tuple[tuple[type[fields.Field[Any]], Any], ...]] = (
    (AmountField, "12.50"),
    (LimitField, "50"),
    (CurrencyField, "EUR"),
    (LocaleField, "bs-BA"),
    (RateField, "10/second"),
    (CountField, 5),
    (fields.UUID, ID),
    (fields.DateTime, MOMENT),
    (fields.Integer, 3),
    (fields.String, "a text, long enough"),
)
JUNK: Final[Generated] = st.one_of(
    st.sampled_from(["", " ", "\x00", "x" * 2000, "0", "-1", "1.5", "true", "yes", "EUR", "2026", MOMENT, ID, "nil"]),
    st.sampled_from([None, True, False, 0, 1, -1, 2**70, 1.5, [], {}, [None], [{}], ["EUR"], {"a": 1}]),
    st.text(max_size=5),
)
# Values in objects. The second of a pair is unusual for the field.
SHOWN: Final[tuple[tuple[type[fields.Field[Any]], Any, Any], ...]] = (
    (MoneyField, st.sampled_from([0, 1, -1250, 2**63 - 1]), st.sampled_from([True, "12", 1.5])),
    (fields.UUID, st.just(UUID(ID)), st.sampled_from([ID, "no id", 5])),
    (
        fields.DateTime,
        st.sampled_from(
            [datetime(2026, 1, 31, 12, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 0, 7, timezone(timedelta(hours=-3)))]
        ),
        st.sampled_from([datetime(2026, 1, 31), MOMENT]),  # noqa: DTZ001  Unusual, as it has no zone.
    ),
    (fields.Integer, st.sampled_from([0, 7, -(2**62)]), st.sampled_from([True, "7", "no", 2.5, Decimal(3), 2**70])),
    (fields.Boolean, st.booleans(), st.sampled_from([0, "yes"])),
    (fields.Dict, st.just({"a": [1]}), st.sampled_from([[("a", 1)], 5])),
    (fields.String, st.sampled_from(["", "đ", "text"]), st.sampled_from([Word.ONE, b"bytes", 5, UUID(ID), b"\xff"])),
)


def api_schemas(base: type[Schema] = Schema) -> Iterator[type[Schema]]:
    """Every schema class of the application, once."""
    for child in base.__subclasses__():
        if child.__module__.startswith("app."):
            yield child
        yield from (each for each in api_schemas(child) if each is not child)


def bodies(schema: Schema) -> Generated:
    """Data for `schema.load`."""
    members = {
        (name if field.data_key is None else field.data_key): st.one_of(read_values(field), read_values(field), JUNK)
        for name, field in schema.load_fields.items()
    }
    return st.fixed_dictionaries({}, optional=members | {"unheard": JUNK}) | st.fixed_dictionaries(members) | JUNK


def read_values(field: fields.Field[Any]) -> Generated:
    """Values that the field reads."""
    if isinstance(field, OneOf):
        return st.one_of(*(bodies(form) for form in field.forms.values()))
    if isinstance(field, fields.Nested):
        return bodies(field.schema)  # type: ignore[arg-type]
    if isinstance(field, fields.List):
        return st.lists(read_values(field.inner), max_size=3)
    if isinstance(field, Choice):
        return st.sampled_from(field.choices)
    if isinstance(field, fields.Boolean):
        return st.sampled_from([True, "true"])
    return st.just(next((value for kind, value in READ if isinstance(field, kind)), None))


class Thing:
    """An object with these attributes."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        vars(self).update(attributes)


def objects(schema: Schema) -> Generated:
    """Objects for `schema.dump`; some lack an attribute, some are dicts."""
    always = {"currency": st.just("EUR"), "hash": st.just(b"ab"), "tenant_slug": st.just("km")}
    members = {
        field.attribute or name: shown_values(field)
        for name, field in schema.dump_fields.items()
        if not isinstance(field, fields.Function)
    }
    whole = st.fixed_dictionaries(always | members)
    lacking = st.fixed_dictionaries({}, optional=always | members)
    return st.one_of(
        whole.map(Thing), whole.map(Thing), lacking.map(Thing), whole, lacking, st.sampled_from([None, ()])
    )


def shown_values(field: fields.Field[Any]) -> Generated:
    if isinstance(field, fields.Nested):
        return st.none() | objects(field.schema)  # type: ignore[arg-type]
    if isinstance(field, fields.List):
        return st.none() | st.lists(shown_values(field.inner), max_size=2)
    usual, unusual = next((usual, unusual) for kind, usual, unusual in SHOWN if isinstance(field, kind))
    return st.one_of(usual, usual, usual, st.none(), unusual, st.just(missing))
