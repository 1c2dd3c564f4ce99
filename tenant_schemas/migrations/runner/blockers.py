"""Looks who holds the locks that workers wait for: afterwards PostgreSQL could no longer say."""

from collections.abc import Callable, Sequence
from threading import Event, Thread

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

# Asked in a db transaction of its own each time: PostgreSQL shows one picture of its sessions in each.
_BLOCKERS = """
    SELECT w.pid, string_agg(DISTINCT format('%%s (process %%s%%s%%s%%s)', coalesce(a.usename, 'somebody'), b.pid,
        ', ' || nullif(a.application_name, ''), ', ' || a.state,
        ' since ' || to_char(a.xact_start, 'YYYY-MM-DD HH24:MI:SSOF')), '; ')
    FROM unnest(%s::integer[]) AS w (pid) CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS b (pid)
    LEFT JOIN pg_stat_activity a ON a.pid = b.pid GROUP BY 1"""
_UNSEEN = "unknown: this login may not see it; run `python -m scripts.create_roles` again"


class Blockers:
    """Who was last seen in the way of each backend, by its process number."""

    def __init__(self, engine: Engine, look_seconds: float, pids: Callable[[], Sequence[int]]) -> None:
        self._engine = engine
        self._look_seconds = look_seconds
        self._pids = pids
        self._seen: dict[int, str] = {}
        self._stop = Event()
        self._thread = Thread(target=self._look_on, name="blockers", daemon=True)

    def __enter__(self) -> "Blockers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def of(self, pid: int) -> str | None:
        """Who was in the way of this backend since it was last asked about."""
        return self._seen.pop(pid, None)

    def _look_on(self) -> None:
        while not self._stop.wait(self._look_seconds):
            pids = list(self._pids())
            try:
                self._seen |= self._look(pids) if pids else {}
            except DBAPIError:
                # No right to look, or no connection: the run goes on without names.
                self._seen |= dict.fromkeys(pids, _UNSEEN)

    def _look(self, pids: Sequence[int]) -> dict[int, str]:
        with self._engine.begin() as connection:
            return {int(pid): str(who) for pid, who in connection.exec_driver_sql(_BLOCKERS, (pids,))}
