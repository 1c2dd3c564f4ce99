"""The rows of one table: out of PostgreSQL by COPY, counted and hashed, into a compressed and perhaps sealed file.

The hash adds up the SHA-256 of each row's line, so it is the same in whatever order the rows come; and COPY's text is
the same on every version of PostgreSQL in a session with the settings of `pin_session`.
"""

import os
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from tenant_schemas.backup.encryption import SUFFIX, Recipients, Writer, encrypt
from tenant_schemas.backup.manifest import RowsFile

PIECE_BYTES: Final = 1 << 18
# Hashes and ids hardly compress, so more effort would cost time and win little.
COMPRESSION_LEVEL: Final = 1
GZIP_FORMAT: Final = 31  # zlib's word for it: a window of 2^15, with gzip's head and tail.
_PINNED: Final = """
    SET LOCAL TimeZone TO 'UTC'; SET LOCAL DateStyle TO 'ISO'; SET LOCAL IntervalStyle TO 'postgres';
    SET LOCAL extra_float_digits TO 3; SET LOCAL bytea_output TO 'hex'; SET LOCAL client_encoding TO 'UTF8';
    SET LOCAL row_security TO off; SET LOCAL statement_timeout TO 0; SET LOCAL jit TO off;
    SET LOCAL idle_in_transaction_session_timeout TO 0"""


@dataclass(slots=True)
class Tally:
    """The number of rows and the sum of their hashes."""

    rows: int = 0
    sum: int = 0

    def add(self, line: bytes) -> None:
        self.rows += 1
        self.sum += int.from_bytes(sha256(line).digest())

    @property
    def hash(self) -> str:
        return f"{self.sum % (1 << 256):064x}"


def pin_session(connection: psycopg.Connection[Any]) -> None:
    """Let COPY write alike everywhere, and refuse rather than hide rows, until the open db transaction ends."""
    connection.execute(_PINNED)


def copy_table(schema_name: str, table: str, columns: Sequence[str]) -> sql.Composed:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    return sql.SQL("COPY {} ({}) TO STDOUT").format(sql.Identifier(schema_name, table), names)


def copy_query(query: sql.Composed) -> sql.Composed:
    return sql.SQL("COPY ({}) TO STDOUT").format(query)


def lines_of(connection: psycopg.Connection[Any], copy: sql.Composed) -> Generator[bytes, None, None]:
    """What a COPY … TO STDOUT says, a row at a time, each with its line feed. To be closed by whoever may stop early:
    until then the connection does nothing else.
    """
    with connection.cursor().copy(copy) as said:
        for line in said:
            yield bytes(line)


def tally_of(lines: Iterable[bytes]) -> Tally:
    tally = Tally()
    for line in lines:
        tally.add(line)
    return tally


def write_rows(
    lines: Iterable[bytes], folder: Path, file: str, *, name: str, columns: Sequence[str], recipients: Recipients = ()
) -> RowsFile:
    """Write `folder`/`file`, which must not exist, and say what is in it. With recipients it is sealed, and its name
    says so. The caller makes it durable.
    """
    tally = Tally()
    written = write_file(_compressed(lines, tally), folder, file, recipients)
    return RowsFile(
        name=name, file=written.file, columns=tuple(columns), rows=tally.rows, hash=tally.hash,
        sha256=written.sha256, bytes=written.bytes,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Written:
    """A file as it lies on disk."""

    file: str
    sha256: str
    bytes: int


def write_file(pieces: Iterator[bytes], folder: Path, file: str, recipients: Recipients = ()) -> Written:
    """Write a private file, sealed for its recipients if there are any."""
    file += SUFFIX if recipients else ""
    with open(folder / file, "xb", opener=_open_private) as stored:
        target = _Hashing(stored)
        if recipients:
            encrypt(_Reader(pieces), target, recipients)
        else:
            for piece in pieces:
                target.write(piece)
    return Written(file, target.sha256.hexdigest(), target.bytes)


def _compressed(lines: Iterable[bytes], tally: Tally) -> Iterator[bytes]:
    squeeze = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, GZIP_FORMAT)
    waiting: list[bytes] = []
    size = 0
    for line in lines:
        tally.add(line)
        waiting.append(line)
        size += len(line)
        if size >= PIECE_BYTES:
            yield squeeze.compress(b"".join(waiting))
            waiting, size = [], 0
    yield squeeze.compress(b"".join(waiting))
    yield squeeze.flush()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class _Hashing:
    """A file that is hashed and measured while it is written."""

    def __init__(self, stored: Writer) -> None:
        self.stored, self.sha256, self.bytes = stored, sha256(), 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.bytes += len(data)
        return self.stored.write(data)


class _Reader:
    """Pieces of any size as a file to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces, self.rest = pieces, memoryview(b"")

    def read(self, size: int) -> bytes:
        while not self.rest:
            piece = next(self.pieces, None)
            if piece is None:
                return b""
            self.rest = memoryview(piece)
        taken, self.rest = self.rest[:size], self.rest[size:]
        return bytes(taken)
