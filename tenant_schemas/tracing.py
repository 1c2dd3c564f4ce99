"""The engine's side of distributed traces. It imports no library of traces: an application sets a `Tracer`, or none."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from psycopg import sql


class Tracer(Protocol):
    """What an application tells the engine about the trace that the current thread works for."""

    def transaction_setting(self) -> tuple[str, str] | None:
        """The name and the value of a setting that a db transaction gets now, LOCAL to it; None for none. A trigger can
        store it.
        """

    def statement(self, text: str) -> AbstractContextManager[object]:
        """Entered while the statement runs. `text` has placeholders in place of values."""


@dataclass(slots=True)
class Tracing:
    """The tracer of this process. Without one, statements cost nothing more."""

    tracer: Tracer | None = None

    def is_on_for_this_thread(self) -> bool:
        return self.tracer is not None and self.tracer.transaction_setting() is not None


TRACING = Tracing()


def set_local(setting: tuple[str, str]) -> bytes:
    """The statement for the setting. Tenants' roles may not call set_config."""
    name, value = setting
    statement = sql.SQL("SET LOCAL {} TO {}").format(sql.Identifier(*name.split(".")), sql.Literal(value))
    return statement.as_bytes()
