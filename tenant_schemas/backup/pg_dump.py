"""Runs pg_dump for one schema, for DBAs and their tools: the newest pg_dump installed, in the backup's own snapshot.

A failed pg_dump leaves a truncated file that pg_restore still lists. So the output counts only if pg_dump exits with 0.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tenant_schemas import embedded
from tenant_schemas.errors import DumpFailed

_PIECE_BYTES: Final = 1 << 18
_INSTALLED: Final = Path("/usr/lib/postgresql")


def dump_schema(conninfo: str, schema_name: str, snapshot: str, lock_timeout_ms: int) -> Generator[bytes, None, None]:
    """One schema in pg_dump's custom format, piece by piece. Raises DumpFailed, after the last piece, if
    pg_dump fails.
    """
    parameters: dict[str, Any] = conninfo_to_dict(conninfo)
    password = parameters.pop("password", None)
    # Without quotes pg_dump reads the name as a pattern and folds it to lower case.
    quoted = '"' + schema_name.replace('"', '""') + '"'
    command = [
        str(newest_pg_dump()),
        *("--format=custom", "--no-password", "--strict-names", f"--snapshot={snapshot}"),
        f"--lock-wait-timeout={lock_timeout_ms}",
        f"--schema={quoted}",
        f"--dbname={make_conninfo(**parameters)}",
    ]
    # The password is not on the command line, where every user of the machine could read it.
    environment = os.environ | ({"PGPASSWORD": str(password)} if password else {})
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment) as process:  # noqa: S603
            try:
                while piece := process.stdout.read(_PIECE_BYTES) if process.stdout else b"":
                    yield piece
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            errors.seek(0)
            raise DumpFailed(f"{command[0]} of {schema_name} failed: {' '.join(errors.read().split())}")


@cache
def newest_pg_dump() -> Path:
    """The newest pg_dump on the PATH, in Debian's folders and in the embedded server's package. Raises DumpFailed if
    there is none.
    """
    found = [(version, path) for path in _candidates() if (version := _version(path)) is not None]
    if not found:
        raise DumpFailed("No pg_dump was found: install PostgreSQL's client programs.")
    return max(found, key=lambda each: each[0])[1]


def check_pg_dump(connection: psycopg.Connection[object]) -> None:
    """Raises DumpFailed if the newest pg_dump is older than the server: it would refuse to dump it."""
    path = newest_pg_dump()
    version, server = _version(path) or (0,), connection.info.server_version // 10_000
    if version[0] < server:
        raise DumpFailed(
            f"{path}, the newest pg_dump installed, has version {version[0]}, older than the server's {server}: "
            f"install the client programs of PostgreSQL {server}."
        )


def _candidates() -> Iterator[Path]:
    on_path = shutil.which("pg_dump")
    if on_path:
        yield Path(on_path)
    yield from _INSTALLED.glob("*/bin/pg_dump")
    try:
        yield embedded.binary("pg_dump")
    except RuntimeError:
        return


def _version(path: Path) -> tuple[int, ...] | None:
    try:
        result = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"\) (\d+(?:\.\d+)*)", result.stdout)
    return tuple(map(int, found[1].split("."))) if found else None
