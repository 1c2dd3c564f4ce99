"""Dumps objects by a schema without marshmallow's machinery, into values that orjson writes like marshmallow's.

The values differ: a UUID stays a UUID, because orjson writes it as text. A field whose value has an unusual type, and a
field that this module does not know, is dumped by the field itself.
"""

from collections.abc import Callable
from types import NoneType
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

import marshmallow
from marshmallow import decorators, fields, missing

from app.api.fields import Moment
from app.api.money_fields import MoneyField

Dumper = Callable[[Any], Any]
Convert = Callable[[Any, str, Any], Any]  # of a value, the field's name, and the object that has the value


class _Step(NamedTuple):
    """How one field is dumped: its key, its name, its attribute, the types that need no conversion, the conversion."""

    key: str
    name: str
    attribute: str
    plain: frozenset[type]
    convert: Convert


# By the method that dumps a field: the types of values that orjson writes as the field would.
_PLAIN: Final[dict[Any, frozenset[type]]] = {
    fields.String._serialize: frozenset({str, NoneType}),
    fields.UUID._serialize: frozenset({UUID, NoneType}),
    fields.Integer._serialize: frozenset({int, NoneType}),
    fields.Boolean._serialize: frozenset({bool, NoneType}),
    Moment._serialize: frozenset({NoneType}),
    MoneyField._serialize: frozenset({NoneType}),
    fields.Nested._serialize: frozenset({NoneType}),
    fields.List._serialize: frozenset({NoneType}),
}
_NO_MEMBERS: Final[dict[str, Any]] = {}
# Every object has it. It stands for the attribute of a field that reads the whole object.
_ANY_ATTRIBUTE: Final = "__class__"


def dumper_of(answer_schema: marshmallow.Schema) -> Dumper:
    """A function that dumps one object. It returns the result of `answer_schema.dump`, as values for orjson."""
    if not _is_known(answer_schema):
        return answer_schema.dump
    steps = [_step(name, field) for name, field in answer_schema.dump_fields.items()]

    def dump(item: Any) -> Any:
        # Of a SQLAlchemy object, an attribute costs a Python call, and a loaded one lies in its __dict__ too.
        members = item if type(item) is dict else getattr(item, "__dict__", _NO_MEMBERS)
        if members is not item and hasattr(item, "__getitem__"):
            return answer_schema.dump(item)
        made = {}
        for key, name, attribute, plain, convert in steps:
            value = members.get(attribute, missing)
            if value is missing:
                value = getattr(item, attribute, missing)
            if type(value) in plain:
                made[key] = value
            elif value is not missing:
                made[key] = convert(value, name, item)
        return made

    return dump


def _is_known(answer_schema: marshmallow.Schema) -> bool:
    has_hooks = any(answer_schema._hooks[tag] for tag in (decorators.PRE_DUMP, decorators.POST_DUMP))
    has_own_access = type(answer_schema).get_attribute is not marshmallow.Schema.get_attribute
    return not (has_hooks or has_own_access or answer_schema.many) and all(
        type(field).serialize is fields.Field.serialize
        and type(field).get_value is fields.Field.get_value
        and field.dump_default is missing
        and "." not in (field.attribute or name)
        and (isinstance(field, fields.Function) or field._CHECK_ATTRIBUTE)
        for name, field in answer_schema.dump_fields.items()
    )


def _step(name: str, field: fields.Field[Any]) -> _Step:
    key = name if field.data_key is None else field.data_key
    if isinstance(field, fields.Function):
        return _Step(key, name, _ANY_ATTRIBUTE, frozenset(), field._serialize)
    method: Any = type(field)._serialize
    plain = frozenset() if getattr(field, "as_string", False) else _PLAIN.get(method, frozenset())
    nested = _NESTED.get(method)
    convert = nested(field) if nested else field._serialize
    return _Step(key, name, field.attribute or name, plain, convert)


def _nested_conversion(field: Any) -> Convert:
    if field.schema.many or field.many:
        return cast(Convert, field._serialize)
    dump = dumper_of(field.schema)
    return lambda value, name, item: dump(value)


def _list_conversion(field: Any) -> Convert:
    """For a list of objects. The field itself dumps other lists."""
    inner = field.inner
    if type(inner)._serialize is not fields.Nested._serialize or inner.schema.many or inner.many:
        return cast(Convert, field._serialize)
    dump = dumper_of(inner.schema)
    return lambda value, name, item: [None if each is None else dump(each) for each in value]


_NESTED: Final[dict[Any, Callable[[Any], Convert]]] = {
    fields.Nested._serialize: _nested_conversion,
    fields.List._serialize: _list_conversion,
}
