"""The application as served in production: gunicorn on a test database."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.config import ROOT
from tenant_schemas.testing.plugin import Database
from tests.conftest import SECRET_KEY, SIGNING_KEYS
from tests.factories.ports import free_port

PATIENCE_SECONDS = 30


@contextmanager
def served(database: Database, log_path: Path, *options: str, **more: str) -> Iterator[str]:
    """Run gunicorn with these options and settings; yields its URL. The log explains a failure."""
    port = free_port()
    environment = os.environ | {
        "DATABASE_URL": database.app_url,
        "ADMIN_DATABASE_URL": database.admin_url,
        "TENANT_SECRET": database.tenant_secret,
        "SECRET_KEY": SECRET_KEY,
        "SIGNING_KEYS": SIGNING_KEYS,
    }
    command = [sys.executable, "-m", "gunicorn", "wsgi:app", "--bind", f"127.0.0.1:{port}", *options]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment | more, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until_it_listens(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)


def wait_until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"{process.args} does not listen")
