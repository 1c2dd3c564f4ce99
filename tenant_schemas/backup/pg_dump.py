"""pg_dump of one schema, for DBAs and their tools: by the newest pg_dump at hand, under the backup's own snapshot.

A pg_dump that fails half-way leaves a file that pg_restore lists happily; so what it says is taken for whole only when
it has ended well.
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


def dump_schema(conninfo: str, schema_name: str, snapshot: str) -> Generator[bytes, None, None]:
    """pg_dump's custom format of one schema, piece by piece. Raises DumpFailed at the end if it did not end well."""
    login: dict[str, Any] = conninfo_to_dict(conninfo)
    password = login.pop("password", None)
    # A pattern otherwise, folded to lower case.
    quoted = '"' + schema_name.replace('"', '""') + '"'
    command = [
        str(newest_pg_dump()),
        *("--format=custom", "--no-password", "--strict-names", f"--snapshot={snapshot}"),
        f"--schema={quoted}",
        f"--dbname={make_conninfo(**login)}",
    ]
    # Not on the command line, where every user of the machine could read it.
    environment = os.environ | ({"PGPASSWORD": str(password)} if password else {})
    with tempfile.TemporaryFile("w+") as said:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, env=environment) as running:  # noqa: S603
            try:
                while piece := running.stdout.read(_PIECE_BYTES) if running.stdout else b"":
                    yield piece
            except BaseException:
                running.kill()
                raise
        if running.returncode:
            said.seek(0)
            raise DumpFailed(f"{command[0]} of {schema_name} failed: {' '.join(said.read().split())}")


@cache
def newest_pg_dump() -> Path:
    """The newest of those on the PATH, in Debian's folders and in the embedded server's package."""
    found = [(version, path) for path in _candidates() if (version := _version(path)) is not None]
    if not found:
        raise DumpFailed("There is no pg_dump: install PostgreSQL's client programs.")
    return max(found, key=lambda each: each[0])[1]


def check_pg_dump(connection: psycopg.Connection[object]) -> None:
    """Raises DumpFailed if the newest pg_dump is older than the server: it would refuse, or leave out what is new."""
    path = newest_pg_dump()
    version, server = _version(path) or (0,), connection.info.server_version // 10_000
    if version[0] < server:
        raise DumpFailed(f"The newest pg_dump here, {path}, is of {version[0]}, older than the server, {server}.")


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
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"\) (\d+(?:\.\d+)*)", done.stdout)
    return tuple(map(int, found[1].split("."))) if found else None
