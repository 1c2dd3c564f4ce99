"""Passwords: Argon2id (RFC 9106) with the library's parameters. Each hash takes 64 MiB, so few run at once."""

from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

CONCURRENT_HASHES = 2
# The hash of a random secret, with the same parameters: an unknown address costs as much as a wrong password.
UNKNOWN_USER_HASH = "$argon2id$v=19$m=65536,t=3,p=4$U5XlvsLM2jNV5Rk1monl6A$5z9fgF6CBuDuJn8LM0lvp/uJfXzaO4yplfPyAdBCdpQ"

_hasher = PasswordHasher()
_turns = BoundedSemaphore(CONCURRENT_HASHES)


def hash_password(password: str) -> str:
    with _turns:
        return _hasher.hash(password)


def is_right(password: str, password_hash: str | None) -> bool:
    """Whether the password matches the hash. Without a hash it takes the same time and returns False."""
    with _turns:
        try:
            return _hasher.verify(password_hash or UNKNOWN_USER_HASH, password) and password_hash is not None
        except (VerificationError, InvalidHashError):
            return False
