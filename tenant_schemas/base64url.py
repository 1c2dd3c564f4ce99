"""base64url (RFC 4648) without padding."""

from base64 import urlsafe_b64decode, urlsafe_b64encode


def encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def decode(text: str) -> bytes:
    """The bytes; characters of no alphabet are left out. Raises ValueError for a text that no bytes have."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
