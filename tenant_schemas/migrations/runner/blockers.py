"""Polls which sessions block the workers of a run. PostgreSQL shows this only while a worker waits."""

from collections.abc import Callable, Sequence
from threading import Event, Thread

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from tenant_schemas.sessions import NO_RIGHT, SESSION

# Needs a new db transaction for each poll: within one, pg_stat_activity does not change.
_BLOCKERS = f"""
    SELECT waiting, string_agg(DISTINCT {SESSION}, '; ')
    FROM unnest(%s::integer[]) AS w (waiting) CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting)) AS b (pid)
    LEFT JOIN pg_stat_activity a USING (pid) GROUP BY 1"""  # noqa: S608


class Blockers:
    """The session that was last seen blocking each worker, by the process id of the worker's backend."""

    def __init__(self, engine: Engine, poll_seconds: float, pids: Callable[[], Sequence[int]]) -> None:
        self._engine = engine
        self._poll_seconds = poll_seconds
        self._pids = pids
        self._seen: dict[int, str] = {}
        self._stop = Event()
        self._thread = Thread(target=self._poll, name="blockers", daemon=True)

    def __enter__(self) -> "Blockers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def of(self, pid: int) -> str | None:
        """The session that blocked this backend since the last call for it; None if none did."""
        return self._seen.pop(pid, None)

    def _poll(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            pids = list(self._pids())
            try:
                self._seen |= self._find(pids) if pids else {}
            except DBAPIError:
                # No right to see sessions, or no connection: the run continues without their names.
                self._seen |= dict.fromkeys(pids, NO_RIGHT)

    def _find(self, pids: Sequence[int]) -> dict[int, str]:
        with self._engine.begin() as connection:
            return {int(pid): str(blocker) for pid, blocker in connection.exec_driver_sql(_BLOCKERS, (pids,))}
