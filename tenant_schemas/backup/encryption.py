"""Encryption of a bundle's files in the age format, by the package pyrage: for recipients who need not be here, read
with an identity. Both ways it streams, in pieces of 64 KiB, so memory does not grow with the file.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO, Protocol

import pyrage

from tenant_schemas.errors import AgeKeyRefused, BundleBroken, BundleEncrypted

SUFFIX = ".age"


class Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Writer(Protocol):
    def write(self, data: bytes, /) -> int: ...


Recipients = Sequence[Any]
Identities = Sequence[Any]


def read_recipients(texts: Sequence[str]) -> Recipients:
    """Public keys as `age-keygen` prints them, `age1…`. Raises AgeKeyRefused."""
    try:
        return [pyrage.x25519.Recipient.from_str(text) for text in texts]
    except pyrage.RecipientError as error:
        raise AgeKeyRefused(f"{', '.join(texts)}: not a recipient like age1…: {error}") from None


def read_identities(file: Path) -> Identities:
    """The secret keys in a file of `age-keygen`. Raises AgeKeyRefused."""
    try:
        lines = [line.strip() for line in file.read_text().splitlines()]
        found = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except (OSError, ValueError, pyrage.IdentityError) as error:
        raise AgeKeyRefused(f"{file} can't be read as a file of AGE-SECRET-KEY-1… lines: {error}") from None
    if not found:
        raise AgeKeyRefused(f"{file} holds no identity.")
    return found


def seal(source: Reader, target: Writer, recipients: Recipients) -> None:
    """Encrypt all of `source`. What reading and writing raise is raised as it is, not as pyrage's error."""
    watched = _Watched(source, target)
    try:
        pyrage.encrypt_io(watched, watched, recipients)
    except (pyrage.EncryptError, OSError):
        if watched.error is None:
            raise
        raise watched.error from None


@contextmanager
def unsealed(path: Path, identities: Identities) -> Iterator[BinaryIO]:
    """The plain content of a sealed file. Raises BundleEncrypted if no identity opens it, BundleBroken if damaged.

    pyrage pushes and we pull, so a thread stands between.
    """
    if not identities:
        raise BundleEncrypted(f"{path.name} is sealed: name a file with the identity of one of its recipients.")
    reading, writing = os.pipe()
    opener = _Opener(path, writing, identities)
    opener.start()
    try:
        with os.fdopen(reading, "rb") as plain:
            yield plain
            plain.read()
    except Exception:
        opener.join()
        if opener.error is None:
            raise
        raise opener.error from None  # What was read ended early for the opener's reason.
    opener.join()
    if opener.error is not None:
        raise opener.error


class _Opener(Thread):
    def __init__(self, path: Path, writing: int, identities: Identities) -> None:
        super().__init__(name=f"unsealing {path.name}", daemon=True)
        self.path, self.writing, self.identities = path, writing, identities
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with os.fdopen(self.writing, "wb") as plain, self.path.open("rb") as sealed:
                pyrage.decrypt_io(sealed, plain, self.identities)
        except pyrage.DecryptError as error:
            self.error = BundleEncrypted(f"{self.path.name} can't be opened with this identity: {error}")
        except BrokenPipeError:
            pass  # Whoever reads wanted no more.
        except OSError as error:
            self.error = BundleBroken(f"{self.path.name} can't be decrypted: {error}")


class _Watched:
    """A reader and a writer that remember what they raised."""

    def __init__(self, source: Reader, target: Writer) -> None:
        self.source, self.target = source, target
        self.error: BaseException | None = None

    def read(self, size: int) -> bytes:
        try:
            return self.source.read(size)
        except BaseException as error:
            self.error = error
            raise

    def write(self, data: bytes) -> int:
        try:
            return self.target.write(data)
        except BaseException as error:
            self.error = error
            raise
