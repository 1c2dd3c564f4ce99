"""What can go wrong with API keys."""

from app.errors import NotFound


class KeyNotFound(NotFound):
    """No such key, or another tenant's. The two look alike on purpose."""

    code = "api_key_not_found"
