"""Texts that people read: those of movements, and names. A query and a secret are a plain `Text`."""

import re
from typing import Any, Final

from app.api.fields import Text, coded
from tenant_schemas.names import has_format_character, is_blank

# Embeddings, overrides and isolates change how all around them reads. Other format characters are in honest text.
_BIDIRECTIONAL: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")


class LedgerText(Text):
    """A text that stays in the ledger, without characters that reorder the text around them."""

    default_error_messages = {  # noqa: RUF012  marshmallow's own way
        "format": coded("format_character", "Characters that change the direction of the text are not allowed.")
    }

    def check_beyond_ascii(self, value: str) -> None:
        if _BIDIRECTIONAL.search(value):
            raise self.make_error("format")


class Name(Text):
    """A name that people compare, by the rule of `tenant_schemas/names.py`. It is one line, without tabs."""

    default_error_messages = {  # noqa: RUF012  marshmallow's own way
        "format": coded(
            "format_character", "Characters that show nothing or change the direction of the text are not allowed."
        )
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        name = super()._deserialize(value, attr, data, **kwargs)
        if "\n" in name or "\t" in name:
            raise self.make_error("control")
        return name

    def check_beyond_ascii(self, value: str) -> None:
        if has_format_character(value):
            raise self.make_error("format")
        if is_blank(value):
            raise self.make_error("empty")
