"""Keys derived from SECRET_KEY, one for each purpose, so that none of them is stored."""

import hmac

from app.current import current_app


def derived_key(purpose: str) -> bytes:
    """32 bytes that only this installation can derive, and that differ for each purpose."""
    secret: str = current_app.config["SECRET_KEY"]
    return hmac.digest(secret.encode(), f"key:{purpose}".encode(), "sha256")
