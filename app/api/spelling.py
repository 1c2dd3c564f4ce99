"""The spelling of names on the wire."""


def camel_case(name: str) -> str:
    """`credit_limit` as `creditLimit`."""
    first, *others = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)
