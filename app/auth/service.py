"""Logging in, and changing one's password."""

from uuid import UUID

import sqlalchemy as sa

from app.auth.errors import BadCredentials, WrongPassword
from app.auth.passwords import hash_password, is_right
from app.auth.sessions import end_other_sessions
from app.db import db
from app.users.models import User
from app.users.service import Credentials, credentials


def authenticate(email: str, password: str) -> Credentials:
    """The active user with this address and password. Raises BadCredentials for anything else, after the same work
    whether or not the address is known.
    """
    known = credentials(email)
    matches = is_right(password, known.password_hash if known else None)
    if known is None or not matches or not known.is_active:
        raise BadCredentials("The e-mail address or the password is wrong.")
    return known


def change_password(known: Credentials, session_id: UUID | None, *, current: str, new: str) -> None:
    """Give the user a new password and end their other sessions. Locks the user's row until the db transaction ends,
    and is to be called before one is open, for hashing takes its time. Raises WrongPassword.

    In this order: a log-in with the old password that is faster is ended too, and one that is slower finds it changed.
    """
    if not is_right(current, known.password_hash):
        raise WrongPassword("The current password is wrong.")
    unchanged = (User.id == known.user_id) & (User.password_hash == known.password_hash)
    changed = sa.update(User).where(unchanged).values(password_hash=hash_password(new)).returning(User.id)
    if db.session.scalar(changed) is None:
        raise WrongPassword("The current password is wrong.")
    end_other_sessions(known.user_id, session_id)
