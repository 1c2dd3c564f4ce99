"""Secrets and codes of the second factor: TOTP (RFC 6238, six digits, 30 seconds) and recovery codes."""

import hmac
import os
from base64 import b32encode
from hashlib import sha256
from secrets import token_bytes
from typing import Final
from uuid import UUID

import pyotp
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.derived_keys import derived_key

ISSUER: Final = "schema-wallet"
STEP_SECONDS: Final = 30
CLOCK_STEPS: Final = (0, -1, 1)  # The two clocks may differ by one step.
RECOVERY_CODES: Final = 10
_RECOVERY_BYTES: Final = 10  # 80 bits: a plain hash is enough, because nobody can try them all
_NONCE_BYTES: Final = 12


def new_secret() -> str:
    """A new TOTP secret of 160 bits (RFC 4226, 4), in base32."""
    return pyotp.random_base32()


def provisioning_uri(secret: str, email: str) -> str:
    """The secret for an authenticator, usually shown as a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=ISSUER)


def encrypt(secret: str, user_id: UUID) -> bytes:
    """The secret for the database. It can be decrypted for this user only."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + _cipher().encrypt(nonce, secret.encode(), user_id.bytes)


def decrypt(encrypted: bytes, user_id: UUID) -> str | None:
    """The secret; None if it was encrypted with another SECRET_KEY, or for another user."""
    try:
        nonce, text = encrypted[:_NONCE_BYTES], encrypted[_NONCE_BYTES:]
        return _cipher().decrypt(nonce, text, user_id.bytes).decode()
    except (InvalidTag, ValueError):
        return None


def step_of(secret: str, code: str, now: float) -> int | None:
    """The time step whose code this is, near now; None for a wrong code."""
    totp, present = pyotp.TOTP(secret), int(now) // STEP_SECONDS
    matching = [
        present + offset
        for offset in CLOCK_STEPS
        if hmac.compare_digest(totp.generate_otp(present + offset).encode(), code.encode())
    ]
    return max(matching, default=None)


def normalized(code: str) -> str:
    """The code as it is compared, without the spaces and hyphens that people type."""
    return code.replace(" ", "").replace("-", "").lower()


def new_recovery_codes() -> list[str]:
    """Ten new codes, in groups of four characters."""
    made = [b32encode(token_bytes(_RECOVERY_BYTES)).decode().lower() for _ in range(RECOVERY_CODES)]
    return ["-".join(code[start : start + 4] for start in range(0, len(code), 4)) for code in made]


def recovery_hash(code: str) -> bytes:
    return sha256(normalized(code).encode()).digest()


def _cipher() -> AESGCM:
    return AESGCM(derived_key("second factors"))
