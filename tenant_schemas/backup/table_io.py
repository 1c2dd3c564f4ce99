"""Writes the rows of one table: reads them by COPY, counts and hashes them, and writes a compressed file, encrypted if
there are recipients.

The hash is the sum of the SHA-256 of each row's line, so it does not depend on the order of rows. With the settings of
`pin_session`, COPY writes the same text on every version of PostgreSQL.
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

from tenant_schemas.backup.decompression import GZIP_FORMAT, PIECE_BYTES
from tenant_schemas.backup.encryption import SUFFIX, Recipients, Writer, encrypt
from tenant_schemas.backup.manifest import RowsFile

# Hashes and ids hardly compress, so a higher level costs time and saves little.
COMPRESSION_LEVEL: Final = 1
_SESSION_SETTINGS: Final = """
    SET LOCAL TimeZone TO 'UTC'; SET LOCAL DateStyle TO 'ISO'; SET LOCAL IntervalStyle TO 'postgres';
    SET LOCAL extra_float_digits TO 3; SET LOCAL bytea_output TO 'hex'; SET LOCAL client_encoding TO 'UTF8';
    SET LOCAL row_security TO off; SET LOCAL statement_timeout TO 0; SET LOCAL jit TO off;
    SET LOCAL idle_in_transaction_session_timeout TO 0"""


@dataclass(slots=True)
class Tally:
    """The number of rows and the sum of their hashes; their size in bytes, and that of the longest."""

    rows: int = 0
    sum: int = 0
    size: int = 0
    longest: int = 0

    def add(self, line: bytes) -> None:
        length = len(line)
        self.rows += 1
        self.size += length
        self.longest = max(self.longest, length)
        self.sum += int.from_bytes(sha256(line).digest())

    @property
    def hash(self) -> str:
        return f"{self.sum % (1 << 256):064x}"


def pin_session(connection: psycopg.Connection[Any]) -> None:
    """Until the open db transaction ends, make COPY write the same text on every server, make queries fail if row-level
    security would hide rows, and disable the timeouts of statements and of an idle db transaction.
    """
    connection.execute(_SESSION_SETTINGS)


def copy_table(schema_name: str, table: str, columns: Sequence[str]) -> sql.Composed:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    return sql.SQL("COPY {} ({}) TO STDOUT").format(sql.Identifier(schema_name, table), names)


def copy_query(query: sql.Composed) -> sql.Composed:
    return sql.SQL("COPY ({}) TO STDOUT").format(query)


def lines_of(connection: psycopg.Connection[Any], copy: sql.Composed) -> Generator[bytes, None, None]:
    """The output of a COPY … TO STDOUT, one row at a time, each with its line feed. A caller that may stop early must
    close the generator: until then the connection can run no other statement.
    """
    with connection.cursor().copy(copy) as output:
        for line in output:
            yield bytes(line)


def tally_of(lines: Iterable[bytes]) -> Tally:
    tally = Tally()
    for line in lines:
        tally.add(line)
    return tally


def write_rows(
    lines: Iterable[bytes], folder: Path, file: str, *, name: str, columns: Sequence[str], recipients: Recipients = ()
) -> RowsFile:
    """Write `folder`/`file`, which must not exist, and describe it. With recipients the file is encrypted and its name
    ends in `.age`. The caller syncs it to disk.
    """
    tally = Tally()
    written = write_file(_compressed(lines, tally), folder, file, recipients)
    return RowsFile(
        name=name, file=written.file, columns=tuple(columns), rows=tally.rows, hash=tally.hash,
        sha256=written.sha256, bytes=written.bytes, unpacked_bytes=tally.size, longest_row=tally.longest,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file on disk: its name, digest and size."""

    file: str
    sha256: str
    bytes: int


def write_file(pieces: Iterator[bytes], folder: Path, file: str, recipients: Recipients = ()) -> StoredFile:
    """Write a file with mode 0600, encrypted if there are recipients."""
    file += SUFFIX if recipients else ""
    with open(folder / file, "xb", opener=_open_private) as stored:
        target = _HashingWriter(stored)
        if recipients:
            encrypt(_PieceReader(pieces), target, recipients)
        else:
            for piece in pieces:
                target.write(piece)
    return StoredFile(file, target.sha256.hexdigest(), target.bytes)


def _compressed(lines: Iterable[bytes], tally: Tally) -> Iterator[bytes]:
    compressor = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, GZIP_FORMAT)
    pending: list[bytes] = []
    size = 0
    for line in lines:
        tally.add(line)
        pending.append(line)
        size += len(line)
        if size >= PIECE_BYTES:
            yield compressor.compress(b"".join(pending))
            pending, size = [], 0
    yield compressor.compress(b"".join(pending))
    yield compressor.flush()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class _HashingWriter:
    """Hashes and measures a file while it is written."""

    def __init__(self, stored: Writer) -> None:
        self.stored, self.sha256, self.bytes = stored, sha256(), 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.bytes += len(data)
        return self.stored.write(data)


class _PieceReader:
    """Lets a file be read from pieces of any size."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces, self.rest = pieces, memoryview(b"")

    def read(self, size: int) -> bytes:
        while not self.rest:
            piece = next(self.pieces, None)
            if piece is None:
                return b""
            self.rest = memoryview(piece)
        result, self.rest = self.rest[:size], self.rest[size:]
        return bytes(result)
