"""The installation's own age identity, derived from its newest bundle key: what is encrypted by default is encrypted
for it. So whoever can sign a bundle can open it, and no further key has to be kept.
"""

import hmac
from typing import Any, Final

import pyrage

from tenant_schemas.backup.encryption import Identities
from tenant_schemas.backup.signature import BundleKeys

_OF_IDENTITY: Final = b"tenant_schemas: age identity of a bundle key\n"
# Bech32 (BIP 173), in which age writes its keys.
_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATORS: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_PREFIX: Final = "age-secret-key-"


def own_identities(keys: BundleKeys) -> Identities:
    """The identity of each key of the installation, the newest first."""
    return [_identity(key) for key in keys.keys]


def own_recipient(keys: BundleKeys) -> str:
    """The public key of the newest identity, `age1…`."""
    return str(_identity(keys.keys[0]).to_public())


def _identity(key: bytes) -> Any:
    secret = hmac.digest(key, _OF_IDENTITY, "sha256")
    return pyrage.x25519.Identity.from_str(_bech32(_PREFIX, secret).upper())


def _bech32(prefix: str, data: bytes) -> str:
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    values = [int(bits[start : start + 5], 2) for start in range(0, len(bits), 5)]
    expanded = [*(ord(char) >> 5 for char in prefix), 0, *(ord(char) & 31 for char in prefix)]
    checksum = _polymod([*expanded, *values, *(0,) * 6]) ^ 1
    values += [checksum >> 5 * (5 - place) & 31 for place in range(6)]
    return f"{prefix}1{''.join(_ALPHABET[value] for value in values)}"


def _polymod(values: list[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for place, generator in enumerate(_GENERATORS):
            checksum ^= generator if top >> place & 1 else 0
    return checksum
