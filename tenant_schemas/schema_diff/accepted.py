"""The differences from the migrations that an installation accepts, from a file: one object on each line, by its kind
and name, such as `index wallets_report_idx`. `*` stands for any characters, and `#` begins a comment.

What breaks a restore is never accepted.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tenant_schemas.errors import AcceptedDriftRefused
from tenant_schemas.schema_diff.effects import DriftedObject, Effect

_LINE: Final = re.compile(
    r"(relation|column|constraint|index|trigger|function|policy|rule|type|sequence|statistics|extension|other object"
    r"|rights on (schema|relation|column|function)) \S.*"
)


@dataclass(frozen=True, slots=True)
class AcceptedDrift:
    """The lines of the file, without comments."""

    lines: tuple[str, ...] = ()

    def without_accepted(self, objects: Iterable[DriftedObject]) -> list[DriftedObject]:
        patterns = [re.compile(".*".join(map(re.escape, line.split("*")))) for line in self.lines]
        return [
            each
            for each in objects
            if each.effect is Effect.BREAKS or not any(pattern.fullmatch(each.name) for pattern in patterns)
        ]


NOTHING_ACCEPTED: Final = AcceptedDrift()


def read_accepted_drift(path: Path) -> AcceptedDrift:
    """Raises AcceptedDriftRefused if the file can't be read, or a line does not begin with the kind of an object."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise AcceptedDriftRefused(f"{path} can't be read: {reason}.") from None
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    for number, line in enumerate(lines, 1):
        if line and not _LINE.fullmatch(line):
            raise AcceptedDriftRefused(
                f"{path}, line {number}: {line!r} is no object: write its kind and name as "
                "`migration_status --drift` does, for instance `index wallets_report_idx`."
            )
    return AcceptedDrift(tuple(filter(None, lines)))
