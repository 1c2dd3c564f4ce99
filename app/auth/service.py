"""Log-in by password and second factor, and the change of a password."""

from typing import Final
from uuid import UUID

import sqlalchemy as sa

from app.auth.errors import BadCredentials, NoPassword, SessionOver, WrongPassword
from app.auth.passwords import hash_password, is_right, refuse_obvious_password
from app.auth.second_factor.errors import SecondFactorRequired, SecondFactorWrong
from app.auth.second_factor.service import drop_unconfirmed, proves, would_prove
from app.auth.sessions import end_other_sessions, session_lasts
from app.db import db
from app.errors import TooManyRequests
from app.limits.attempts import code_attempt, password_attempt
from app.limits.concurrency import TooManyConcurrentRequests
from app.mail.models import MailKind
from app.mail.outbox import drop_tokens, put_notice
from app.users.errors import MemberNotFound
from app.users.models import User
from app.users.service import Credentials, credentials, credentials_of


def authenticate(email: str, password: str) -> Credentials:
    """The active user with this address and password. Raises BadCredentials otherwise, at the same cost for a known and
    an unknown address.
    """
    known = credentials(email)
    matches = is_right(password, known.password_hash if known else None)
    if known is None or not matches or not known.is_active:
        raise BadCredentials("The e-mail address or the password is wrong.")
    return known


def prove_second_factor(known: Credentials, code: str | None, *, is_used: bool = True) -> None:
    """Check the code of a user with a second factor, after the password was right, and use it up unless the log-in is
    refused for another reason. Wrong codes are counted for the user. They hold up log-ins and no session. Raises
    SecondFactorRequired, SecondFactorWrong, TooManyRequests.
    """
    if not known.has_second_factor:
        return
    if code is None:
        raise SecondFactorRequired("Send the log-in again, with the code of your authenticator or a recovery code.")
    with code_attempt(known.user_id):
        if not (proves if is_used else would_prove)(known.user_id, code):
            raise SecondFactorWrong("The code is wrong, or was used before.")


# What `confirm_password` may refuse with.
PASSWORD_REFUSALS: Final = (NoPassword, WrongPassword, MemberNotFound, TooManyRequests, TooManyConcurrentRequests)


def confirm_password(user_id: UUID, session_id: UUID | None, password: str) -> None:
    """Check the password of the logged-in user again, and lock the account (`lock_account`). Failures count for the
    session, as those of a change of the password do. Call it before a db transaction is open, because hashing takes
    time. Raises NoPassword, WrongPassword, SessionOver, TooManyRequests, TooManyConcurrentRequests.
    """
    with password_attempt(user_id, session_id):
        known = credentials_of(user_id)
        _refuse_without_password(known)
        if not is_right(password, known.password_hash):
            raise WrongPassword("The current password is wrong.")
    lock_account(user_id, session_id, known.password_hash)


def lock_account(user_id: UUID, session_id: UUID | None, password_hash: str | None = None) -> None:
    """Lock the user's row until the db transaction ends, and look again whether the session lasts and the password is
    still this one. Call it before each change of the own account: since the gate let the caller in, a password was
    hashed or a slow body was read, and the owner may have put a thief out meanwhile. Raises SessionOver, WrongPassword.
    """
    locked = sa.select(User.password_hash).where(User.id == user_id, User.status == "active")
    found = db.session.execute(locked.with_for_update(key_share=True)).one_or_none()
    if found is None or (session_id is not None and not session_lasts(session_id)):
        raise SessionOver("The session is over; log in again.")
    if password_hash is not None and found.password_hash != password_hash:
        raise WrongPassword("The current password is wrong.")


def change_password(known: Credentials, session_id: UUID | None, *, current: str, new: str) -> str:
    """Set the user's new password, end the user's other sessions, and return the new password hash. Locks the user's
    row until the db transaction ends. Call it before a db transaction is open, because hashing takes time. The user
    gets a mail, and an unconfirmed change of the address is dropped. Raises NoPassword, WrongPassword, Invalid.

    The update comes before the sessions end: a faster log-in with the old password is ended too, and a slower one finds
    the password changed.
    """
    _refuse_without_password(known)
    if not is_right(current, known.password_hash):
        raise WrongPassword("The current password is wrong.")
    refuse_obvious_password(new, known.email, known.name)
    unchanged = (User.id == known.user_id) & (User.password_hash == known.password_hash)
    new_hash = hash_password(new)
    changed = sa.update(User).where(unchanged).values(password_hash=new_hash).returning(User.id)
    if db.session.scalar(changed) is None:
        raise WrongPassword("The current password is wrong.")
    follow_password_change(known.user_id, known.email, session_id)
    return new_hash


def follow_password_change(user_id: UUID, email: str, kept_session: UUID | None) -> None:
    """What a new password brings with it: the user's other sessions end, tokens for a reset or a new address and a
    second factor that waits for its confirmation are dropped, because a thief may have asked for them, and the user
    gets a mail. Commits nothing.
    """
    end_other_sessions(user_id, kept_session)
    drop_unconfirmed(user_id)
    drop_tokens(user_id, MailKind.PASSWORD_RESET, MailKind.EMAIL_CHANGE)
    put_notice(MailKind.PASSWORD_CHANGED, email, user_id)


def _refuse_without_password(known: Credentials) -> None:
    if known.password_hash is None:
        raise NoPassword("Your account has no password: you log in through your identity provider.")
