"""Makes foreign text safe to show: in a terminal, control characters move the cursor and bidirectional ones reorder the
line, so that it reads as another one.
"""


def printable(text: str, keep: str = "") -> str:
    """The text with every character that is not printable as an escape (\\x1b, \\u202e), except those in `keep`."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape", "replace").decode()
        for each in text
    )
