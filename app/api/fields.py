"""What schemas are made of: their base, and fields that take one form of a thing and say by a code what is wrong."""

import re
from datetime import UTC, datetime
from typing import Any, ClassVar, cast
from unicodedata import category
from uuid import UUID

import marshmallow
from marshmallow import fields

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


class Coded(str):
    """An error message that carries its stable code through marshmallow."""

    __slots__ = ("code",)
    code: str

    def format(self, *args: object, **kwargs: object) -> "Coded":
        return coded(self.code, super().format(*args, **kwargs))


def coded(code: str, message: str) -> Coded:
    made = Coded(message)
    made.code = code
    return made


class Schema(marshmallow.Schema):
    """The base of all schemas: unknown fields are refused, and answers keep the order of their fields."""

    error_messages = {  # noqa: RUF012  marshmallow's own way
        "unknown": coded("unknown_field", "There is no such field."),
        "type": coded("not_an_object", "A JSON object is needed."),
    }


class Answer(Schema):
    """The base of what is only shown: every member is always there, except those that `may_lack` names."""

    may_lack: ClassVar[tuple[str, ...]] = ()

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Nothing is loaded with it, so this is for its description alone."""
        field_obj.required = field_name not in self.may_lack


REQUIRED = {"required": coded("required", "This field is needed."), "null": coded("required", "This field is needed.")}


class Text(fields.String):
    """Text of 1 to `max_length` characters, without control characters that PostgreSQL or a terminal would choke on."""

    default_error_messages = {  # noqa: RUF012
        **REQUIRED,
        "invalid": coded("not_a_string", "A string is needed."),
        "empty": coded("empty", "It must not be empty."),
        "too_long": coded("too_long", "At most {max_length} characters."),
        "control": coded("control_character", "Control characters are not allowed."),
    }

    def __init__(self, *, max_length: int, description: str | None = None, **kwargs: Any) -> None:
        described = {"description": description} if description else {}
        super().__init__(metadata={"minLength": 1, "maxLength": max_length, **described}, **kwargs)
        self.max_length = max_length

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise self.make_error("invalid")
        if not value.strip():
            raise self.make_error("empty")
        if len(value) > self.max_length:
            raise self.make_error("too_long", max_length=self.max_length)
        if any(category(character) == "Cc" and character not in "\t\n" for character in value):
            raise self.make_error("control")
        return value


class Identifier(fields.UUID):
    """A UUID in a body or a query, in the one form that RFC 9562 gives it; Python would take others too."""

    default_error_messages = {**REQUIRED, "invalid_uuid": coded("not_a_uuid", "A UUID is needed.")}  # noqa: RUF012

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> UUID:
        if not isinstance(value, str) or not _UUID.fullmatch(value):
            raise self.make_error("invalid_uuid")
        return UUID(value)


class Choice(fields.String):
    """One of a few words."""

    default_error_messages = {  # noqa: RUF012
        **REQUIRED,
        "invalid": coded("not_a_string", "A string is needed."),
        "unknown_choice": coded("unknown_choice", "Choose one of: {choices}."),
    }

    def __init__(self, *choices: str, **kwargs: Any) -> None:
        super().__init__(metadata={"enum": list(choices)}, **kwargs)
        self.choices = choices

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if value not in self.choices:
            raise self.make_error("unknown_choice", choices=", ".join(self.choices))
        return cast(str, value)


class Flag(fields.Boolean):
    """true or false; marshmallow's own would take 1 and "yes" too."""

    default_error_messages = {  # noqa: RUF012  marshmallow's own way
        name: coded("not_a_boolean", "Send true or false, without quotes.") for name in ("invalid", "null")
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class Moment(fields.AwareDateTime):
    """A moment in RFC 3339. In a request it must say its offset; in an answer it is UTC with a Z."""

    default_error_messages = {  # noqa: RUF012
        **REQUIRED,
        **dict.fromkeys(
            ("invalid", "invalid_awareness", "format"),
            coded("not_a_moment", "A moment is needed, like 2026-01-31T12:00:00Z."),
        ),
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
            raise self.make_error("invalid", input=value)
        moment: datetime = super()._deserialize(value, attr, data, **kwargs)
        try:
            return moment.astimezone(UTC)
        except OverflowError:  # A day of the year 1 or 9999 that UTC puts into the year before or after.
            raise self.make_error("invalid", input=value) from None

    def _serialize(self, value: datetime | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


class OneOf(fields.Field[Any]):
    """An object of one of several forms. Its `type` says of which, and that form's schema reads it."""

    default_error_messages = {  # noqa: RUF012
        "null": coded("not_an_object", "A JSON object is needed."),
        "not_an_object": coded("not_an_object", "A JSON object is needed."),
    }

    def __init__(self, forms: dict[str, Schema], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.forms = forms
        self.type = Choice(*forms, required=True)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise self.make_error("not_an_object")
        try:
            form = str(self.type.deserialize(value.get("type", marshmallow.missing)))
        except marshmallow.ValidationError as error:
            raise marshmallow.ValidationError({"type": error.messages}) from None
        return self.forms[form].load(value)


def one_of_openapi(self: Any, field: fields.Field[Any], **_: Any) -> dict[str, Any]:
    """How it looks in OpenAPI."""
    if not isinstance(field, OneOf):
        return {}
    references = {name: self.resolve_nested_schema(form) for name, form in field.forms.items()}
    mapping = {name: reference["$ref"] for name, reference in references.items()}
    return {"oneOf": list(references.values()), "discriminator": {"propertyName": "type", "mapping": mapping}}
