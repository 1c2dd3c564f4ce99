"""The rule of names that people compare: of users, members, API keys and tenants.

A name reads as what it is. It has no characters that show nothing or change the direction of the text, and does not
consist of blanks.
"""

import re
from typing import Final
from unicodedata import category

JOINERS: Final = "\u200c\u200d"  # Persian and Indic letters and emoji need them.
_FORMAT: Final = frozenset({"Cf", "Zl", "Zp"})
_STRAY_JOINER: Final = re.compile(
    f"(?<![^\\x00-\u024f\u2000-\u206f])[{JOINERS}]|[{JOINERS}](?![^\\x00-\u024f\u2000-\u206f])"
)
_WITHOUT_JOINERS: Final = str.maketrans("", "", JOINERS)
# Letters and symbols without a picture: the fillers of Hangul, an empty Braille pattern, an empty note head.
_BLANK: Final = frozenset("\u115f\u1160\u3164\uffa0\u2800\U0001d159")


def has_format_character(name: str) -> bool:
    """Whether a character of Unicode's format category is in it. A joiner counts only at the edge of a word or beside a
    Latin letter, where it joins nothing.
    """
    return bool(_STRAY_JOINER.search(name)) or any(category(each) in _FORMAT and each not in JOINERS for each in name)


def is_blank(name: str) -> bool:
    """Whether people see nothing. Marks alone are nothing: some show nothing, the others belong to a letter."""
    return not any(category(each)[0] not in "ZMC" and each not in _BLANK for each in name)


def is_printable(name: str) -> bool:
    """Whether each character is printable, or a joiner: in a terminal, `printable` shows one as an escape."""
    return name.translate(_WITHOUT_JOINERS).isprintable()
