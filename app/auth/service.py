"""Logging in."""

from app.auth.errors import BadCredentials
from app.auth.passwords import is_right
from app.members.models import User
from app.members.service import find_user


def authenticate(email: str, password: str) -> User:
    """The active user with this address and password, on the shared side. Raises BadCredentials for anything else,
    after the same work whether or not the address is known.
    """
    user = find_user(email)
    matches = is_right(password, user.password_hash if user else None)
    if user is None or not matches or not user.is_active:
        raise BadCredentials("The e-mail address or the password is wrong.")
    return user
