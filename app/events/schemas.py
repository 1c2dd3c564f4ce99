"""The feed on the wire."""

from typing import Any, Final

from marshmallow import fields

from app.api.fields import coded
from app.events.models import EVENT_TYPES

_LIST: Final = ", ".join(f"`{type_}`" for type_ in EVENT_TYPES)


class EventTypes(fields.String):
    """Types of events, separated by commas, in a query."""

    default_error_messages = {  # noqa: RUF012
        "unknown_choice": coded("unknown_choice", "Name types of events, separated by commas: {choices}."),
    }

    def __init__(self, **kwargs: Any) -> None:
        about = {"description": f"types separated by commas: {_LIST}", "maxLength": 1000}
        super().__init__(metadata=about, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        types = str(value).split(",")
        if not set(types) <= set(EVENT_TYPES):
            raise self.make_error("unknown_choice", choices=", ".join(EVENT_TYPES))
        return types
