"""Logging in."""

from uuid import UUID

from app.auth.errors import BadCredentials
from app.auth.passwords import is_right
from app.members.service import credentials


def authenticate(email: str, password: str) -> UUID:
    """The id of the active user with this address and password. Raises BadCredentials for anything else, after the
    same work whether or not the address is known.
    """
    known = credentials(email)
    matches = is_right(password, known.password_hash if known else None)
    if known is None or not matches or not known.is_active:
        raise BadCredentials("The e-mail address or the password is wrong.")
    return known.user_id
