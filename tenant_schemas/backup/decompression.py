"""Unpacks the rows of a bundle within bounds. A thousand bytes may unpack to a million, so the size of what was written
is compared while it is unpacked, and memory holds one row and one piece.
"""

import io
import zlib
from collections.abc import Iterator
from typing import Final, Protocol

from tenant_schemas.errors import BundleBroken

PIECE_BYTES: Final = 1 << 18
GZIP_FORMAT: Final = 31  # zlib's `wbits`: a window of 2^15 bytes, with gzip's header and trailer.


class Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


def unpacked_lines(stored: Reader, *, most_bytes: int | None, longest_line: int) -> Iterator[bytes]:
    """The lines, each with its line feed, of a gzip file of one member. Raises BundleBroken as soon as a bound is
    exceeded or the file proves to be incomplete, and zlib.error.
    """
    parts: list[bytes] = []
    length = 0  # of an incomplete line
    for piece in _pieces(stored, most_bytes):
        end = piece.rfind(b"\n") + 1
        if end:
            yield from io.BytesIO(b"".join((*parts, piece[:end])))
            parts, length = [], 0
        parts.append(piece[end:])
        length += len(piece) - end
        if length > longest_line:
            raise BundleBroken(f"a row unpacks to more than {longest_line} bytes.")
    if length:
        yield b"".join(parts)


def _pieces(stored: Reader, most_bytes: int | None) -> Iterator[bytes]:
    inflate, total = zlib.decompressobj(GZIP_FORMAT), 0
    while not inflate.eof:
        packed = inflate.unconsumed_tail or stored.read(PIECE_BYTES)
        piece = inflate.decompress(packed, PIECE_BYTES)
        total += len(piece)
        if most_bytes is not None and total > most_bytes:
            raise BundleBroken(f"it unpacks to more than the {most_bytes} bytes that its manifest says.")
        if not packed and not piece:
            raise BundleBroken("it ends too early.")
        yield piece
    if inflate.unused_data or stored.read(1):
        raise BundleBroken("something follows the packed rows.")
