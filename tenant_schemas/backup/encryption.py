"""Encryption of a bundle's files in the age format, with the package pyrage: for recipients (public keys), and read
with an identity (a secret key). Both directions stream in pieces of 64 KiB, so memory does not grow with the file.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO, Protocol

import pyrage

from tenant_schemas.errors import BundleBroken, BundleEncrypted, KeyRefused

SUFFIX = ".age"


class Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Writer(Protocol):
    def write(self, data: bytes, /) -> int: ...


Recipients = Sequence[Any]
Identities = Sequence[Any]


def read_recipients(texts: Sequence[str]) -> Recipients:
    """Public keys as `age-keygen` prints them, `age1…`. Raises KeyRefused for an invalid one."""
    try:
        return [pyrage.x25519.Recipient.from_str(text) for text in texts]
    except pyrage.RecipientError as error:
        raise KeyRefused(
            f"One of these is no valid recipient: {', '.join(texts)}: {error}. Give a public key age1… of age-keygen."
        ) from None


def read_identities(file: Path) -> Identities:
    """The secret keys in a file of `age-keygen`. Raises KeyRefused if there is none or one is invalid."""
    try:
        lines = [line.strip() for line in file.read_text().splitlines()]
        found = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except (OSError, ValueError, pyrage.IdentityError) as error:
        raise KeyRefused(f"{file} can't be read as an identity file with lines AGE-SECRET-KEY-1…: {error}") from None
    if not found:
        raise KeyRefused(f"{file} contains no identity: give a file of age-keygen with a line AGE-SECRET-KEY-1….")
    return found


def encrypt(source: Reader, target: Writer, recipients: Recipients) -> None:
    """Encrypt all of `source`. Errors of reading and writing are raised unchanged, not as pyrage's error."""
    recorder = _ErrorRecorder(source, target)
    try:
        pyrage.encrypt_io(recorder, recorder, recipients)
    except (pyrage.EncryptError, OSError):
        if recorder.error is None:
            raise
        raise recorder.error from None


@contextmanager
def decrypted(stored: Reader, name: str, identities: Identities) -> Iterator[BinaryIO]:
    """The plain content of an encrypted file, which messages call `name`. Raises BundleEncrypted if no identity
    decrypts it, BundleBroken if it is damaged.

    pyrage writes into a file and the caller reads from one, so a thread decrypts into a pipe.
    """
    if not identities:
        raise BundleEncrypted(f"{name} is encrypted: name a file with the identity of a recipient (--identity).")
    reading, writing = os.pipe()
    decryption = _Decryption(stored, name, writing, identities)
    decryption.start()
    try:
        with os.fdopen(reading, "rb") as plain:
            yield plain
            plain.read()
    except Exception:
        decryption.join()
        if decryption.error is None:
            raise
        raise decryption.error from None  # The reader's error follows from it: the content ended early.
    decryption.join()
    if decryption.error is not None:
        raise decryption.error


class _Decryption(Thread):
    """Decrypts a file into the write end of a pipe; `error` is set when it failed."""

    def __init__(self, stored: Reader, file: str, writing: int, identities: Identities) -> None:
        super().__init__(name=f"decrypting {file}", daemon=True)
        self.stored, self.file, self.writing, self.identities = stored, file, writing, identities
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with os.fdopen(self.writing, "wb") as plain:
                pyrage.decrypt_io(self.stored, plain, self.identities)
        except pyrage.DecryptError as error:
            self.error = BundleEncrypted(f"{self.file} can't be decrypted with this identity: {error}")
        except BrokenPipeError:
            pass  # The reader closed the pipe early.
        except OSError as error:
            self.error = BundleBroken(f"{self.file} can't be decrypted: {error}")


class _ErrorRecorder:
    """Passes reads and writes on, and keeps the error that one of them raised."""

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
