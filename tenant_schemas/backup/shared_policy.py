"""The application's part of a backup of the schema shared."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPolicy:
    """Which rows of the schema shared belong to its bundle: all, except those of the tables `left_out`, by table with
    the reason, and except those that `conditions`, SQL expressions by table, exclude.

    `incidental` are tables that commands fill in an installation without users: their rows do not count as data of the
    installation, and a restore replaces them. `after_load` runs at the head, as the owner, when the rows of a restore
    are proved.
    """

    left_out: Mapping[str, str]
    conditions: Mapping[str, LiteralString] = field(default_factory=dict)
    incidental: frozenset[str] = frozenset()
    after_load: Callable[[psycopg.Connection[Any]], None] | None = None
