"""MACs and keys derived from SECRET_KEY, apart for each purpose, so that none of them is stored."""

import hmac

from app.current import current_app


def mac_of(purpose: str, message: bytes) -> bytes:
    """The HMAC-SHA256 of the message, which only this installation can make. It differs for each purpose, whose name
    has no colon.
    """
    secret: str = current_app.config["SECRET_KEY"]
    return hmac.digest(secret.encode(), f"{purpose}:".encode() + message, "sha256")


def derived_key(purpose: str) -> bytes:
    """32 bytes that only this installation can derive, and that differ for each purpose."""
    return mac_of("key", purpose.encode())
