"""Refusals of API keys."""

from app.errors import NotFound


class KeyNotFound(NotFound):
    """No such key, or another tenant's key. Both get the same answer."""

    code = "api_key_not_found"
