"""The demo's database: an embedded PostgreSQL with its tenants and people, for as long as this process runs. The other
processes use it as they would use any server, by the settings that this one writes into a file.

    python -m scripts.support.demo.database FILE
"""

import json
import os
import signal
import sys
from pathlib import Path

from app.config import Settings, read_settings
from scripts.serve import STOP_SIGNALS, prepare

# The settings that an installation must have.
GIVEN = (
    *("database_url", "admin_database_url", "relay_database_url"),
    *("tenant_secret", "secret_key", "signing_keys_file"),
)


def main(path: Path) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    settings = read_settings()
    prepare(settings)
    write_settings(settings, path)
    signal.sigwait(STOP_SIGNALS)


def write_settings(settings: Settings, path: Path) -> None:
    """Write the environment of the other processes into a file that appears at once and that its owner alone reads."""
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.touch(mode=0o600)
    unfinished.write_text(json.dumps({name.upper(): getattr(settings, name) for name in GIVEN}))
    unfinished.rename(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
