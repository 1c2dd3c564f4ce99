"""Log-in by password, and the change of a password."""

from uuid import UUID

import sqlalchemy as sa

from app.auth.errors import BadCredentials, WrongPassword
from app.auth.passwords import hash_password, is_right
from app.auth.sessions import end_other_sessions
from app.db import db
from app.users.models import User
from app.users.service import Credentials, credentials


def authenticate(email: str, password: str) -> Credentials:
    """The active user with this address and password. Raises BadCredentials otherwise, at the same cost for a known and
    an unknown address.
    """
    known = credentials(email)
    matches = is_right(password, known.password_hash if known else None)
    if known is None or not matches or not known.is_active:
        raise BadCredentials("The e-mail address or the password is wrong.")
    return known


def change_password(known: Credentials, session_id: UUID | None, *, current: str, new: str) -> str:
    """Set the user's new password, end the user's other sessions, and return the new password hash. Locks the user's
    row until the db transaction ends. Call it before a db transaction is open, because hashing takes time. Raises
    WrongPassword.

    The update comes before the sessions end: a faster log-in with the old password is ended too, and a slower one finds
    the password changed.
    """
    if not is_right(current, known.password_hash):
        raise WrongPassword("The current password is wrong.")
    unchanged = (User.id == known.user_id) & (User.password_hash == known.password_hash)
    new_hash = hash_password(new)
    changed = sa.update(User).where(unchanged).values(password_hash=new_hash).returning(User.id)
    if db.session.scalar(changed) is None:
        raise WrongPassword("The current password is wrong.")
    end_other_sessions(known.user_id, session_id)
    return new_hash
