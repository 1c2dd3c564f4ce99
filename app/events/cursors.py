"""A place in a feed as text: the feed's id and a position. Consumers keep it, and send it back as `after` or
`Last-Event-ID`.
"""

import re
from typing import Final
from uuid import UUID

from app.errors import Invalid, Place

_CURSOR: Final = re.compile(r"([0-9a-f]{32})-([0-9]{1,18})", re.ASCII)


def cursor_of(feed_id: UUID, position: int) -> str:
    return f"{feed_id.hex}-{position}"


def read_cursor(text: str, name: str = "after", place: Place = "query") -> tuple[UUID, int]:
    """The feed's id and the position. Raises Invalid for what is no cursor."""
    found = _CURSOR.fullmatch(text)
    if found is None:
        message = "Send a cursor as you got it, or none to start now."
        raise Invalid.at(name, "bad_cursor", message, place)
    return UUID(found[1]), int(found[2])
