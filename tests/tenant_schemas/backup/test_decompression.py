"""Unpacking keeps to its bounds in bytes and in memory, and reads what gzip writes."""

import gzip
import io
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_schemas.backup.decompression import PIECE_BYTES, unpacked_lines
from tenant_schemas.errors import BundleBroken

MEGABYTE = 1 << 20


def lines(packed: bytes, most_bytes: int | None = None, longest_line: int = MEGABYTE) -> list[bytes]:
    return list(unpacked_lines(io.BytesIO(packed), most_bytes=most_bytes, longest_line=longest_line))


@given(st.lists(st.binary(max_size=40).map(lambda text: text.replace(b"\n", b"")), max_size=30), st.booleans())
def test_the_lines_are_those_of_the_text(rows: list[bytes], ends: bool) -> None:
    text = b"\n".join(rows) + (b"\n" if ends else b"")
    assert lines(gzip.compress(text), len(text)) == list(io.BytesIO(text))


def test_lines_across_pieces_are_whole() -> None:
    text = b"\n".join(bytes([65 + number % 26]) * (PIECE_BYTES // 3 + number) for number in range(12)) + b"\n"
    assert lines(gzip.compress(text)) == list(io.BytesIO(text))


@pytest.mark.parametrize("row", [b"a", b"a\n"])
def test_a_bomb_ends_as_soon_as_it_exceeds_its_size(row: bytes) -> None:
    """0.4 MB that unpack to 400 MB, as one row and as many."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(row * (MEGABYTE // len(row))) for _ in range(400)) + packer.flush()
    assert len(bomb) < MEGABYTE
    tracemalloc.start()
    with pytest.raises(BundleBroken, match="more than"):
        lines(bomb, 2 * MEGABYTE if row == b"a\n" else None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200 * MEGABYTE if row == b"a\n" else peak < 10 * MEGABYTE


def test_a_file_that_is_cut_or_has_more_behind_it_is_refused() -> None:
    packed = gzip.compress(b"a\nb\n" * 1000)
    for wrong in (packed[:-1], packed[:-9], b"", packed + b"x", packed + gzip.compress(b"c\n")):
        with pytest.raises(BundleBroken):
            lines(wrong)
    with pytest.raises(zlib.error):
        lines(b"no gzip at all")


def test_a_file_may_unpack_to_just_its_size() -> None:
    assert lines(gzip.compress(b"ab\ncd\n"), 6, 3) == [b"ab\n", b"cd\n"]
    with pytest.raises(BundleBroken, match="more than the 5 bytes"):
        lines(gzip.compress(b"ab\ncd\n"), 5, 3)
