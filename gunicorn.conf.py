"""What `gunicorn wsgi:app` uses in this folder without options. `python -m scripts.serve` also chooses the number of
workers and threads, listens on METRICS_PORT, and prepares an embedded server.

With METRICS_PORT or METRICS_TOKEN, all workers write their figures into one new folder. The figures of a worker that
has ended stay, or counters would go back; so let no option end workers after a number of requests.
"""

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "wallet-metrics-"

worker_class = "app.gunicorn_worker.BufferedWorker"
threads = 128  # Most of them only wait.
loglevel = "error"  # At other levels gunicorn logs header lines of requests, which may contain a token.

# As in `scripts`: gunicorn and its workers start sooner, and end without half a second of looking for garbage.
gc.set_threshold(10_000)
atexit.register(gc.freeze)

# The application's import asks for the folder. gunicorn reads this file again at SIGHUP, and keeps the folder.
if (os.environ.get("METRICS_PORT") or os.environ.get("METRICS_TOKEN")) and _FOLDER not in os.environ:
    os.environ[_FOLDER] = tempfile.mkdtemp(prefix=_PREFIX)


def child_exit(_: Any, worker: Any) -> None:
    """The gauges of a worker that has ended no longer count."""
    if _FOLDER in os.environ:
        from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415

        mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:
    """Remove the folder, unless a new gunicorn uses it after SIGUSR2."""
    folder = Path(os.environ.get(_FOLDER, ""))
    if folder.name.startswith(_PREFIX) and not server.reexec_pid:
        shutil.rmtree(folder, ignore_errors=True)
