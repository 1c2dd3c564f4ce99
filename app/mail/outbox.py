"""Puts account mails into the outbox, and uses the tokens that they carry. A worker sends them (`worker.py`).

Everything here works on the shared side and in the session's db transaction, so that a mail is sent if and only if the
change that it tells of commits; only `ask_for_reset` commits by itself.
"""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from app.db import db
from app.errors import NotFound
from app.mail.models import AccountMail, MailKind
from app.mail.tokens import hash_of, token_of
from tenant_schemas.flask import connections

NOTICE_SECONDS: Final = 2 * 86_400  # for how long a mail without a token is tried
PRUNED_AT_ONCE: Final = 1000
TOKEN_NOT_VALID: Final = "The token is not valid: it was used or replaced, or it has expired. Ask for a new one."  # noqa: S105

# One statement with one written row, whether or not the address is known: the cost tells nothing. Without a password,
# and with an OpenID provider, the mail says so and its token is of no use.
# A token that still works is sent again, because a new one would make the mail useless that the owner reads just now,
# and a stranger may ask too. It lives on with each mail, for a day at most.
_ASK_FOR_RESET: Final = """
    WITH known AS (
        SELECT id, email, password_hash IS NULL AND %(has_provider)s AS needs_none
        FROM shared.users WHERE email = %(email)s AND status = 'active'
    ), asked AS (
        SELECT k.id AS user_id, coalesce(k.email, '') AS recipient, coalesce(k.needs_none, false) AS needs_none
        FROM (SELECT) AS always LEFT JOIN known k ON true
    )
    INSERT INTO shared.account_mails AS sent (id, kind, recipient, user_id, token_hash, token_made_at, expires_at,
        next_attempt_at)
    SELECT %(id)s, CASE WHEN needs_none THEN 'no_password' ELSE 'password_reset' END, recipient, user_id,
        CASE WHEN needs_none THEN NULL ELSE %(token_hash)s::bytea END, now(),
        now() + make_interval(secs => %(seconds)s), CASE WHEN user_id IS NOT NULL THEN now() END
    FROM asked
    ON CONFLICT (user_id, kind) WHERE token_hash IS NOT NULL AND user_id IS NOT NULL DO UPDATE SET
        (id, token_hash, token_made_at) = (
            SELECT CASE WHEN works THEN sent.id ELSE excluded.id END,
                CASE WHEN works THEN sent.token_hash ELSE excluded.token_hash END,
                CASE WHEN works THEN coalesce(sent.token_made_at, sent.created_at) ELSE now() END
            FROM (SELECT sent.used_at IS NULL AND sent.expires_at > now() AND sent.recipient = excluded.recipient
                AND coalesce(sent.token_made_at, sent.created_at) > now() - interval '1 day' AS works) AS token),
        recipient = excluded.recipient, created_at = now(), expires_at = excluded.expires_at, used_at = NULL,
        attempts = 0, next_attempt_at = now(), sent_at = NULL"""
_PRUNE: Final = """
    DELETE FROM shared.account_mails WHERE id IN (
        SELECT id FROM shared.account_mails WHERE expires_at < now() - make_interval(days => %s)
        ORDER BY expires_at LIMIT %s) RETURNING id"""


class AccountTokenNotFound(NotFound):
    """The token of a mail is unknown, was used or replaced, or has expired. All get the same answer."""

    code = "account_token_not_found"

    def __init__(self, detail: str = TOKEN_NOT_VALID) -> None:
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class TokenHolder:
    """What a valid token is good for: the mail's recipient, and the user or the invitation."""

    mail_id: UUID
    recipient: str
    user_id: UUID | None
    invitation_id: UUID | None


def put_token_mail(
    kind: MailKind,
    recipient: str,
    *,
    seconds: int,
    user_id: UUID | None = None,
    invitation_id: UUID | None = None,
    details: dict[str, Any] | None = None,
) -> None:
    """Send a new token to the recipient. It replaces the user's, or the invitation's, earlier token of this kind."""
    mail_id = uuid4()
    values = {
        "id": mail_id,
        "recipient": recipient,
        "details": details or {},
        "token_hash": hash_of(token_of(mail_id)),
        "expires_at": _in_seconds(seconds),
        "next_attempt_at": sa.func.now(),
    }
    made = insert(AccountMail).values(kind=kind, user_id=user_id, invitation_id=invitation_id, **values)
    anew = values | {"created_at": sa.func.now(), "used_at": None, "attempts": 0, "sent_at": None}
    if invitation_id is not None:
        made = made.on_conflict_do_update(index_elements=["invitation_id"], set_=anew)
    else:
        has_token = AccountMail.token_hash.is_not(None) & AccountMail.user_id.is_not(None)
        made = made.on_conflict_do_update(index_elements=["user_id", "kind"], index_where=has_token, set_=anew)
    db.session.execute(made)


def put_notice(kind: MailKind, recipient: str, user_id: UUID, **details: str) -> None:
    """Tell the owner of an account of a change."""
    notice = sa.insert(AccountMail).values(
        id=uuid4(),
        kind=kind,
        recipient=recipient,
        user_id=user_id,
        details=details,
        expires_at=_in_seconds(NOTICE_SECONDS),
        next_attempt_at=sa.func.now(),
    )
    db.session.execute(notice)


def ask_for_reset(email: str, *, seconds: int, has_provider: bool) -> None:
    """Send a token for a new password to the active user with this address: the unused one again, if there is one.
    Answer and cost are the same for an unknown address, for which an empty row is written. Committed when it returns.
    """
    mail_id = uuid4()
    told = {"email": email.strip().lower(), "id": mail_id, "token_hash": hash_of(token_of(mail_id))}
    connections().shared.one_statement(_ASK_FOR_RESET, told | {"seconds": seconds, "has_provider": has_provider})


def holder_of(kind: MailKind, token: str) -> TokenHolder:
    """What the token is good for, without using it. Raises AccountTokenNotFound."""
    mail = AccountMail
    query = sa.select(mail.id, mail.recipient, mail.user_id, mail.invitation_id).where(*_is_valid(kind, token))
    row = db.session.execute(query).one_or_none()
    if row is None:
        raise AccountTokenNotFound
    return TokenHolder(*row)


def use_token(kind: MailKind, token: str) -> None:
    """Use the token up. Locks its row: the second of two calls finds it used. Raises AccountTokenNotFound."""
    used = sa.update(AccountMail).where(*_is_valid(kind, token)).values(used_at=sa.func.now(), next_attempt_at=None)
    if db.session.scalar(used.returning(AccountMail.id)) is None:
        raise AccountTokenNotFound


def drop_tokens(user_id: UUID, *kinds: MailKind) -> None:
    """Make the user's tokens of these kinds useless, sent or not."""
    mail = AccountMail
    of_user = sa.delete(mail).where(mail.user_id == user_id, mail.kind.in_(kinds))
    db.session.execute(of_user.where(mail.token_hash.is_not(None)))  # The index has mails with tokens only.


def prune_mails(days: int) -> int:
    """Delete the mails that expired this many days ago. Works in batches and commits each."""
    count = 0
    while batch := len(connections().shared.one_statement(_PRUNE, (days, PRUNED_AT_ONCE))):
        count += batch
    return count


def _is_valid(kind: MailKind, token: str) -> tuple[sa.ColumnElement[bool], ...]:
    mail = AccountMail
    return (
        mail.token_hash == hash_of(token),
        mail.kind == kind,
        mail.used_at.is_(None),
        mail.expires_at > sa.func.now(),
        mail.recipient != "",
    )


def _in_seconds(seconds: int) -> sa.ColumnElement[Any]:
    return sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
