"""When API keys were used, kept at little cost: the gate notes a use in memory, and a worker writes the notes of a
minute at once, outside of every request. A process that dies loses the notes of its last minute.
"""

from datetime import UTC, datetime
from threading import Event, Lock
from typing import Final, cast
from uuid import UUID

from flask import Flask

from app.current import current_app
from app.idle_sweep import start_sweeps
from tenant_schemas.flask import connections

EXTENSION: Final = "key_uses"
SECONDS: Final = 60.0

# SKIP LOCKED: it waits for nothing, and the next minute writes it. A later use that another process wrote stays.
_WRITE: Final = """
    WITH used AS (SELECT * FROM unnest(%s::uuid[], %s::timestamptz[]) AS used (id, at)),
    free AS (
        SELECT k.id, u.at FROM shared.api_keys k JOIN used u ON u.id = k.id
        WHERE k.last_used_at IS NULL OR k.last_used_at < u.at ORDER BY k.id FOR UPDATE OF k SKIP LOCKED)
    UPDATE shared.api_keys k SET last_used_at = free.at FROM free WHERE k.id = free.id"""


class KeyUses:
    """The uses that this process has not written yet: the last one of each key."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._noted: dict[UUID, datetime] = {}

    def note(self, key_id: UUID) -> None:
        with self._lock:
            self._noted[key_id] = datetime.now(UTC)

    def write(self) -> None:
        """Write the notes, one row for each key. Committed when it returns; if it fails, the notes are lost."""
        with self._lock:
            noted, self._noted = self._noted, {}
        if noted:
            connections().shared.one_statement(_WRITE, (list(noted), list(noted.values())))


def init_app(app: Flask) -> None:
    app.extensions[EXTENSION] = KeyUses()


def note_key_use(key_id: UUID) -> None:
    """Note that the key is used now. Touches no database."""
    cast(KeyUses, current_app.extensions[EXTENSION]).note(key_id)


def start_key_use_worker(app: Flask, seconds: float = SECONDS) -> Event:
    """Write the notes every `seconds` in a daemon thread, until the returned event is set. Call this after the process
    was forked.
    """
    return start_sweeps(app, "key-uses", seconds, sweep)


def sweep() -> None:
    """One round."""
    cast(KeyUses, current_app.extensions[EXTENSION]).write()
