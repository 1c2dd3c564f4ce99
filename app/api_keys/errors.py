"""Refusals of API keys."""

from app.errors import Conflict, NotFound


class KeyNotFound(NotFound):
    """No such key, or another tenant's key. Both get the same answer."""

    code = "api_key_not_found"


class ApiKeysUndecided(Conflict):
    """API keys depend on the right of a member who is to lose it. `apiKeys` lists them; the request must choose what
    becomes of them.
    """

    code = "api_keys_undecided"
