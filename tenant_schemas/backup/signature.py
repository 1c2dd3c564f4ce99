"""The signature of a bundle: an HMAC-SHA-256 of its manifest with a key of the installation. The manifest has the
digest of every other file, so the signature covers the whole bundle.

An installation may know several keys: the first signs, all verify. Whoever has a key can sign, so keep keys away from
bundles.
"""

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Final

from tenant_schemas.errors import BundleBroken, KeyRefused

SIGNATURE_NAME: Final = "manifest.mac"
# Each use of a key has a text of its own, so that no MAC of one use is one of another.
_OF_MANIFEST: Final = b"tenant_schemas: manifest of a bundle\n"
_OF_KEY_ID: Final = b"tenant_schemas: id of a bundle key\n"
_OF_DERIVED_KEY: Final = b"tenant_schemas: bundle key of a secret\n"
_KEY: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SIGNATURE: Final = re.compile(rb"hmac-sha256 ([0-9a-f]{16}) ([0-9a-f]{64})\n")


class Origin(StrEnum):
    """Where a bundle comes from: signed by a key of this installation, by another key, or by none."""

    OWN = "own"
    FOREIGN = "foreign"
    UNSIGNED = "unsigned"


@dataclass(frozen=True, slots=True)
class BundleKeys:
    """The keys of the installation, the newest first."""

    keys: Sequence[bytes] = field(repr=False)

    def sign(self, manifest: bytes) -> bytes:
        """The content of the signature's file."""
        key = self.keys[0]
        return f"hmac-sha256 {_key_id(key)} {_mac(key, _OF_MANIFEST + manifest)}\n".encode()

    def origin(self, manifest: bytes, signature: bytes | None) -> Origin:
        """Raises BundleBroken if the signature is no signature, or names a key of this installation and differs."""
        if signature is None:
            return Origin.UNSIGNED
        found = _SIGNATURE.fullmatch(signature)
        if found is None:
            raise BundleBroken(f"{SIGNATURE_NAME} is no signature.")
        for key in self.keys:
            if _key_id(key) == found[1].decode():
                if hmac.compare_digest(_mac(key, _OF_MANIFEST + manifest), found[2].decode()):
                    return Origin.OWN
                raise BundleBroken("manifest.json was changed after it was signed. Use another bundle.")
        return Origin.FOREIGN


def derived_key(secret: str) -> bytes:
    """The key of an installation without a key file, from its master secret."""
    return hmac.digest(secret.encode(), _OF_DERIVED_KEY, "sha256")


def read_key_file(file: Path) -> list[bytes]:
    """The keys in a file: one of 64 hexadecimal digits on each line, the newest first; lines with # are comments.
    Raises KeyRefused.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise KeyRefused(f"{file} can't be read: {error}") from None
    texts = [line for line in lines if line and not line.startswith("#")]
    if not texts or not all(map(_KEY.fullmatch, texts)):
        raise KeyRefused(f"{file} must have one key on each line, of 64 hexadecimal digits in lower case.")
    return [bytes.fromhex(text) for text in texts]


def _mac(key: bytes, message: bytes) -> str:
    return hmac.new(key, message, sha256).hexdigest()


def _key_id(key: bytes) -> str:
    return _mac(key, _OF_KEY_ID)[:16]
