"""What a user changes of the own account: name, address, and a forgotten password.

Everything works on the shared side and commits nothing. The verbs that take a token lock the user's row first and the
token's row then, as a change of the password does.
"""

from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from psycopg.errors import UniqueViolation
from sqlalchemy.exc import IntegrityError

from app.auth.passwords import hash_password, refuse_obvious_password
from app.auth.service import follow_password_change
from app.db import db
from app.limits import log_in_slot
from app.limits.attempts import forget_failures
from app.mail.models import MailKind
from app.mail.outbox import (
    AccountTokenNotFound,
    TokenHolder,
    drop_tokens,
    holder_of,
    put_notice,
    put_token_mail,
    use_token,
)
from app.users.errors import UserExists
from app.users.models import User
from app.users.service import get_user


def rename_user(user_id: UUID, name: str) -> User:
    """Set the user's name. A tenant that calls its member by another name keeps that."""
    user = get_user(user_id)
    user.name = name
    db.session.flush()
    return user


@dataclass(frozen=True, slots=True)
class Proven:
    """An owner who has proved the account with a mailed token, with the new password's hash."""

    user_id: UUID
    password_hash: str


def reset_password(token: str, new: str) -> Proven:
    """Set a new password with the token of a mail. It ends all sessions of the user, and the user gets a mail. A second
    factor stays. Failed log-ins are forgotten, because strangers may have used up the account's. A token that went to
    another address than the account's present one is refused. Hashes after the token was found, and before it is used.
    Raises AccountTokenNotFound, Invalid.
    """
    holder = holder_of(MailKind.PASSWORD_RESET, token)
    user_id = _user_of(holder)
    user = get_user(user_id)
    _refuse_former_address(holder, user.email)
    refuse_obvious_password(new, user.email, user.name)
    db.session.commit()  # No db transaction is open while the password is hashed.
    with log_in_slot():
        password_hash = hash_password(new)
    forget_failures(holder.recipient)
    email = _lock_active_user(user_id)
    _refuse_former_address(holder, email)
    use_token(MailKind.PASSWORD_RESET, token)
    db.session.execute(sa.update(User).where(User.id == user_id).values(password_hash=password_hash))
    follow_password_change(user_id, email, None)
    return Proven(user_id, password_hash)


def ask_for_email_change(user_id: UUID, new_email: str, *, seconds: int) -> None:
    """Send a token to the new address, also if another account has it: the answer would tell who has an account. An
    earlier token for another address is good no longer. The present address gets a mail too. Commits nothing.
    """
    old, new = get_user(user_id).email, new_email.strip().lower()
    put_token_mail(MailKind.EMAIL_CHANGE, new, seconds=seconds, user_id=user_id, details={"old": old})
    put_notice(MailKind.EMAIL_CHANGE_ASKED, old, user_id, old=old, new=new)


def confirm_email_change(token: str) -> None:
    """Give the account the address to which the token was sent. Tokens that went to the old address are dropped, and
    both addresses get a mail. Raises AccountTokenNotFound, and UserExists if another account has the address.
    """
    holder = holder_of(MailKind.EMAIL_CHANGE, token)
    user_id, new = _user_of(holder), holder.recipient
    old = _lock_active_user(user_id, changes_key=True)
    use_token(MailKind.EMAIL_CHANGE, token)
    try:
        db.session.execute(sa.update(User).where(User.id == user_id).values(email=new))
    except IntegrityError as error:
        if isinstance(error.orig, UniqueViolation):
            raise UserExists("Another account has this address.") from None
        raise
    drop_tokens(user_id, MailKind.PASSWORD_RESET)
    for recipient in (old, new):
        put_notice(MailKind.EMAIL_CHANGED, recipient, user_id, old=old, new=new)


def _user_of(holder: TokenHolder) -> UUID:
    if holder.user_id is None:
        raise AccountTokenNotFound
    return holder.user_id


def _refuse_former_address(holder: TokenHolder, email: str) -> None:
    """A reset that was asked for during a change of the address may have gone to the old one."""
    if holder.recipient != email:
        raise AccountTokenNotFound


def _lock_active_user(user_id: UUID, *, changes_key: bool = False) -> str:
    """Lock the user's row, also against references if the address is to change, which is a key: a lock that grows later
    could deadlock. Returns the address. Raises AccountTokenNotFound for a disabled user.
    """
    active = sa.select(User.email).where(User.id == user_id, User.status == "active")
    email = db.session.scalar(active.with_for_update(key_share=not changes_key))
    if email is None:
        raise AccountTokenNotFound
    return email
