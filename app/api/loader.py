"""Loads valid data of a schema without marshmallow's machinery. Invalid data is loaded by marshmallow, so that it names
every fault: this module reports none.

Only marshmallow's loop over the fields is replaced. Each field still reads its own value.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import marshmallow
from marshmallow import decorators, fields, missing

# What `Loader` leaves to marshmallow.
_OTHER_HOOKS: Final = (decorators.PRE_LOAD, decorators.POST_LOAD, decorators.VALIDATES)

Loader = Callable[[dict[str, Any]], dict[str, Any] | None]


class _Step(NamedTuple):
    """How one field is loaded: the key in the data, the key in the result, and what reads the value."""

    key: str
    name: str
    read: Callable[..., Any]
    default: Any
    is_required: bool
    allows_none: bool


def loader_of(request_schema: marshmallow.Schema) -> Loader:
    """A function that loads valid data as `request_schema.load` does. For invalid data it returns None or raises
    ValidationError. For a schema with features that it does not know, it always returns None.
    """
    if not _is_known(request_schema):
        return lambda _: None
    steps = [_step(name, field) for name, field in request_schema.load_fields.items()]
    validators = [getattr(request_schema, name) for name, *_ in request_schema._hooks[decorators.VALIDATES_SCHEMA]]

    def load(data: dict[str, Any]) -> dict[str, Any] | None:
        made, count = {}, 0
        for key, name, read, default, is_required, allows_none in steps:
            value = data.get(key, missing)
            if value is missing:
                if is_required:
                    return None
                if default is not missing:
                    made[name] = default
                continue
            count += 1
            if value is None and not allows_none:
                return None
            made[name] = None if value is None else read(value, key, data)
        if count != len(data):  # Something is unknown.
            return None
        for validate in validators:
            validate(made, partial=None, many=False, unknown=marshmallow.RAISE)
        return made

    return load


def _is_known(request_schema: marshmallow.Schema) -> bool:
    hooks = request_schema._hooks
    has_plain_validators = not any(
        passes_many or about.get("pass_original") for _, passes_many, about in hooks[decorators.VALIDATES_SCHEMA]
    )
    has_plain_fields = not any(
        callable(field.load_default) or "." in (field.attribute or name)
        for name, field in request_schema.load_fields.items()
    )
    is_plain = request_schema.unknown == marshmallow.RAISE and not request_schema.many and not request_schema.partial
    return is_plain and has_plain_validators and has_plain_fields and not any(hooks[tag] for tag in _OTHER_HOOKS)


def _step(name: str, field: fields.Field[Any]) -> _Step:
    is_overridden = type(field).deserialize is not fields.Field.deserialize
    has_more = is_overridden or field.validators or field.pre_load or field.post_load
    return _Step(
        key=name if field.data_key is None else field.data_key,
        name=field.attribute or name,
        read=field.deserialize if has_more else field._deserialize,
        default=field.load_default,
        is_required=field.required,
        allows_none=field.allow_none,
    )
