"""An embedded server that can be killed and restarted in place."""

import os
import signal
from pathlib import Path
from time import monotonic, sleep

import psycopg

from tenant_schemas import embedded
from tests.factories.processes import lives

# The machine stays up, so no write has to reach the disk; commits are synchronous, as in a real installation.
SETTINGS = ("fsync=off", "full_page_writes=off", "max_connections=60")
KILL = signal.SIGKILL
KILL_SIGNALS = (signal.SIGQUIT, KILL)  # `pg_ctl stop -m immediate`, and kill -9.
GONE_SECONDS = 20


class KillableServer:
    """It keeps its port, so that its URL stays valid."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = embedded.start(folder, SETTINGS)
        self.url = self._server.superuser_url()

    def kill(self, number: signal.Signals) -> None:
        """Send the postmaster a signal, and wait until it is gone."""
        os.kill(self._pid(), number)
        deadline = monotonic() + GONE_SECONDS
        while self._is_alive():
            assert monotonic() < deadline, f"The server survived signal {number}"
            sleep(0.01)

    def kill_backend(self, role_name: str) -> None:
        """kill -9 a working backend of this role, if there is one. PostgreSQL then restarts all backends."""
        query = "SELECT pid FROM pg_stat_activity WHERE usename = %s AND state = 'active' LIMIT 1"
        with psycopg.connect(self.url) as superuser:
            found = superuser.execute(query, (role_name,)).fetchall()
        for (pid,) in found:
            os.kill(pid, KILL)

    def restart(self) -> None:
        """Start it again if it is down, and wait until it has recovered."""
        if not self._is_alive():
            self._server.release()
            self._server = embedded.start(self._folder, (*SETTINGS, f"port={self._server.port}"))
        deadline = monotonic() + GONE_SECONDS
        while not self._answers():
            assert monotonic() < deadline, "The server does not recover"
            sleep(0.05)

    def stop(self) -> None:
        self._server.release()

    def _pid(self) -> int:
        return int((self._folder / "data" / "postmaster.pid").read_text().split()[0])

    def _is_alive(self) -> bool:
        """A killed postmaster leaves its number in the file. A zombie process counts as ended."""
        try:
            return lives(self._pid())
        except OSError:
            return False

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True
