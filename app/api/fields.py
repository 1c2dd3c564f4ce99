"""The base classes of all schemas, and fields that accept one form of a value and report faults by a stable code."""

import re
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, ClassVar, cast
from uuid import UUID

import marshmallow
from marshmallow import fields

from app.api.loader import Loader, loader_of

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
# Unicode's category Cc, which never changes, without tab and line feed.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
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
    """The base of all schemas. Unknown fields are refused, and answers keep the order of their fields."""

    error_messages = {  # noqa: RUF012  marshmallow's own way
        "unknown": coded("unknown_field", "There is no such field."),
        "type": coded("not_an_object", "A JSON object is needed."),
    }

    @cached_property
    def _loader(self) -> tuple[dict[str, Any], Loader]:
        """A copy of the schema may have other fields, so the loader says for which it was made."""
        return self.load_fields, loader_of(self)

    def load(self, data: Any, *, many: bool | None = None, partial: Any = None, unknown: Any = None) -> Any:
        """As marshmallow's. Valid data is loaded without its machinery."""
        known_fields, load_valid = self._loader
        is_usual = type(data) is dict and not many and partial is None and unknown in {None, marshmallow.RAISE}
        if is_usual and known_fields is self.load_fields:
            try:
                loaded = load_valid(data)
            except marshmallow.ValidationError:
                loaded = None
            if loaded is not None:
                return loaded
        return super().load(data, many=many, partial=partial, unknown=unknown)


class Answer(Schema):
    """The base of schemas for answers. Every member is always present, except those in `may_lack`."""

    may_lack: ClassVar[tuple[str, ...]] = ()

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Mark members as required in OpenAPI. Nothing is loaded with this schema."""
        field_obj.required = field_name not in self.may_lack


REQUIRED = {"required": coded("required", "This field is needed."), "null": coded("required", "This field is needed.")}


class Text(fields.String):
    """Text of 1 to `max_length` characters, without control characters. `text_fields.py` has texts with more rules."""

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
        if _CONTROL.search(value):
            raise self.make_error("control")
        if not value.isascii():
            self.check_beyond_ascii(value)
        return value

    def check_beyond_ascii(self, value: str) -> None:
        """Raises ValidationError for a character that this kind of text refuses."""


class Identifier(fields.UUID):
    """A UUID in the textual form of RFC 9562. Python's own parser would accept other forms too."""

    default_error_messages = {**REQUIRED, "invalid_uuid": coded("not_a_uuid", "A UUID is needed.")}  # noqa: RUF012

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> UUID:
        if not isinstance(value, str) or not _UUID.fullmatch(value):
            raise self.make_error("invalid_uuid")
        return UUID(value)


class Words(tuple[str, ...]):
    """A fixed list of words with a name, which is the name of its schema in OpenAPI. Without it, generators of clients
    would invent a name, which may collide with that of another schema.
    """

    name: str

    def __new__(cls, name: str, *words: str) -> "Words":
        made = super().__new__(cls, words)
        made.name = name
        return made

    @property
    def metadata(self) -> dict[str, Any]:
        return {"enum": list(self), "x-words": self.name}


class Word(fields.String):
    """One of a fixed list of words, in an answer."""

    def __init__(self, words: Words, *, description: str | None = None, **kwargs: Any) -> None:
        described = {"description": description} if description else {}
        super().__init__(metadata=words.metadata | described, **kwargs)


class Choice(fields.String):
    """One of a fixed list of words, in a request. A list of several has a name."""

    default_error_messages = {  # noqa: RUF012
        **REQUIRED,
        "invalid": coded("not_a_string", "A string is needed."),
        "unknown_choice": coded("unknown_choice", "Choose one of: {choices}."),
    }

    def __init__(self, choices: Words | str, *, description: str | None = None, **kwargs: Any) -> None:
        described = {"description": description} if description else {}
        named = choices.metadata if isinstance(choices, Words) else {"enum": [choices]}
        super().__init__(metadata=named | described, **kwargs)
        self.choices: tuple[str, ...] = choices if isinstance(choices, Words) else (choices,)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if value not in self.choices:
            raise self.make_error("unknown_choice", choices=", ".join(self.choices))
        return cast(str, value)


class Flag(fields.Boolean):
    """true or false. marshmallow's own field would also accept 1 and "yes"."""

    default_error_messages = {  # noqa: RUF012  marshmallow's own way
        name: coded("not_a_boolean", "Send true or false, without quotes.") for name in ("invalid", "null")
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class QueryFlag(fields.Boolean):
    """true or false, in a query."""

    default_error_messages = {"invalid": coded("not_a_boolean", "Write true or false.")}  # noqa: RUF012

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(truthy={"true"}, falsy={"false"}, **kwargs)


class Moment(fields.AwareDateTime):
    """A date and time by RFC 3339. A request must give the offset; an answer is in UTC with a Z."""

    default_error_messages = {  # noqa: RUF012
        **REQUIRED,
        **dict.fromkeys(
            ("invalid", "invalid_awareness", "format"),
            coded("not_a_moment", "A date and time is needed, like 2026-01-31T12:00:00Z."),
        ),
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
            raise self.make_error("invalid", input=value)
        moment: datetime = super()._deserialize(value, attr, data, **kwargs)
        try:
            return moment.astimezone(UTC)
        except OverflowError:  # In UTC the moment is before the year 1 or after 9999.
            raise self.make_error("invalid", input=value) from None

    def _serialize(self, value: datetime | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else moment_text(value)


def moment_text(moment: datetime) -> str:
    """A moment as the field `Moment` writes it."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


class PeriodQuery(Schema):
    """A period includes its start and excludes its end, so adjacent periods do not overlap."""

    start = Moment(data_key="from", metadata={"description": "at or after this moment"})
    end = Moment(data_key="to", metadata={"description": "before this moment"})

    @marshmallow.validates_schema
    def holds_a_moment(self, data: dict[str, Any], **_: Any) -> None:
        if "start" in data and "end" in data and data["start"] >= data["end"]:
            raise marshmallow.ValidationError([coded("empty_period", "`to` must be later than `from`.")], "to")


class OneOf(fields.Field[Any]):
    """An object of one of several forms. Its `type` selects the schema that loads it."""

    default_error_messages = {  # noqa: RUF012
        "null": coded("not_an_object", "A JSON object is needed."),
        "not_an_object": coded("not_an_object", "A JSON object is needed."),
    }

    def __init__(self, forms: dict[str, Schema], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.forms = forms
        self.type = Choice(Words("Form", *forms), required=True)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise self.make_error("not_an_object")
        try:
            form = str(self.type.deserialize(value.get("type", marshmallow.missing)))
        except marshmallow.ValidationError as error:
            raise marshmallow.ValidationError({"type": error.messages}) from None
        return self.forms[form].load(value)


def one_of_openapi(self: Any, field: fields.Field[Any], **_: Any) -> dict[str, Any]:
    """The OpenAPI description of OneOf."""
    if not isinstance(field, OneOf):
        return {}
    references = {name: self.resolve_nested_schema(form) for name, form in field.forms.items()}
    mapping = {name: reference["$ref"] for name, reference in references.items()}
    return {"oneOf": list(references.values()), "discriminator": {"propertyName": "type", "mapping": mapping}}
