"""The verbs of the second factor: set up, confirm, prove, switch off, and new recovery codes.

A code is good once (RFC 6238, 5.2): the row keeps the time step of the last accepted code, and a used recovery code is
deleted. Wrong codes are counted by the callers. Everything here is on the shared side.
"""

from dataclasses import dataclass
from datetime import datetime
from time import time
from typing import Final
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert

from app.auth.models import Session
from app.auth.second_factor import codes
from app.auth.second_factor.errors import CodeWrong, SecondFactorExists, SecondFactorMissing
from app.auth.second_factor.models import RecoveryCode, SecondFactor
from app.auth.sessions import end_other_sessions
from app.db import db
from app.mail.models import MailKind
from app.mail.outbox import put_notice
from app.users.models import User
from tenant_schemas.flask import connections

log = structlog.get_logger(__name__)

TOTP_LENGTH: Final = 6
_ENCRYPTED: Final = """
    SELECT secret_encrypted FROM shared.second_factors WHERE user_id = %s AND confirmed_at IS NOT NULL"""
# The second of two simultaneous calls waits for the first's row lock, and then finds the step used.
_USE_STEP: Final = """
    UPDATE shared.second_factors SET last_step = %s
    WHERE user_id = %s AND last_step < %s AND confirmed_at IS NOT NULL RETURNING user_id"""
_HAS_STEP: Final = """
    SELECT FROM shared.second_factors WHERE user_id = %s AND last_step < %s AND confirmed_at IS NOT NULL"""
_HAS_RECOVERY_CODE: Final = """
    SELECT FROM shared.recovery_codes r JOIN shared.second_factors f ON f.user_id = r.user_id
    WHERE r.user_id = %s AND r.code_hash = %s AND f.confirmed_at IS NOT NULL"""
_USE_RECOVERY_CODE: Final = """
    DELETE FROM shared.recovery_codes r USING shared.second_factors f
    WHERE r.user_id = %s AND r.code_hash = %s AND f.user_id = r.user_id AND f.confirmed_at IS NOT NULL
    RETURNING r.user_id"""


@dataclass(frozen=True, slots=True)
class FactorState:
    """Whether a user has a second factor, since when, and the number of unused recovery codes."""

    is_on: bool
    confirmed_at: datetime | None
    recovery_codes_left: int


def state_of(user_id: UUID) -> FactorState:
    left = sa.select(sa.func.count()).where(RecoveryCode.user_id == user_id).scalar_subquery()
    found = db.session.execute(sa.select(SecondFactor.confirmed_at, left).where(SecondFactor.user_id == user_id))
    confirmed_at, count = found.one_or_none() or (None, 0)
    return FactorState(confirmed_at is not None, confirmed_at, count)


def proves(user_id: UUID, code: str) -> bool:
    """Whether the code is the user's, and was not used before. It is used then. Committed when it returns."""
    given, shared = codes.normalized(code), connections().shared
    if len(given) != TOTP_LENGTH:
        return bool(shared.one_statement(_USE_RECOVERY_CODE, (user_id, codes.recovery_hash(given))))
    step = _step_of(user_id, given)
    return step is not None and bool(shared.one_statement(_USE_STEP, (step, user_id, step)))


def would_prove(user_id: UUID, code: str) -> bool:
    """As `proves`, without using the code: for a log-in that is refused for another reason."""
    given, shared = codes.normalized(code), connections().shared
    if len(given) != TOTP_LENGTH:
        return bool(shared.one_statement(_HAS_RECOVERY_CODE, (user_id, codes.recovery_hash(given))))
    step = _step_of(user_id, given)
    return step is not None and bool(shared.one_statement(_HAS_STEP, (user_id, step)))


def _step_of(user_id: UUID, given: str) -> int | None:
    """The time step of this code of the user's authenticator; None for a wrong code."""
    rows = connections().shared.one_statement(_ENCRYPTED, (user_id,), retry=True)
    secret = _decrypted(rows[0][0], user_id) if rows else None
    return codes.step_of(secret, given, time()) if secret else None


def set_up(user_id: UUID) -> str:
    """A new secret, which waits for its confirmation. It replaces one that was not confirmed. Commits nothing. Raises
    SecondFactorExists.
    """
    secret = codes.new_secret()
    values = {"secret_encrypted": codes.encrypt(secret, user_id), "last_step": 0}
    made = insert(SecondFactor).values(user_id=user_id, **values)
    anew = made.on_conflict_do_update(
        index_elements=["user_id"],
        set_=values | {"created_at": sa.func.now()},
        where=SecondFactor.confirmed_at.is_(None),
    )
    if db.session.scalar(anew.returning(SecondFactor.user_id)) is None:
        raise SecondFactorExists("Your account has a second factor. Switch it off before you set up another one.")
    return secret


def drop_unconfirmed(user_id: UUID) -> None:
    """Forget a secret that waits for its confirmation. Commits nothing."""
    waiting = (SecondFactor.user_id == user_id) & SecondFactor.confirmed_at.is_(None)
    db.session.execute(sa.delete(SecondFactor).where(waiting))


def confirm(user_id: UUID, code: str, session_id: UUID | None) -> list[str]:
    """Switch the second factor on, and return the recovery codes, which only this answer contains. The session has
    proved the factor; the user's other sessions end, because they have not. Locks the factor's row and commits nothing.
    Raises SecondFactorMissing, CodeWrong.
    """
    waiting = (SecondFactor.user_id == user_id) & SecondFactor.confirmed_at.is_(None)
    encrypted = db.session.scalar(sa.select(SecondFactor.secret_encrypted).where(waiting).with_for_update())
    if encrypted is None:
        raise SecondFactorMissing("No second factor waits for its confirmation. Set one up first.")
    secret = _decrypted(encrypted, user_id)
    step = codes.step_of(secret, codes.normalized(code), time()) if secret else None
    if step is None:
        raise CodeWrong("The code is wrong. Check the time of your device, and send the code that it shows now.")
    confirmed = {"confirmed_at": sa.func.now(), "last_step": step}
    db.session.execute(sa.update(SecondFactor).where(SecondFactor.user_id == user_id).values(confirmed))
    if session_id is not None:
        proven = sa.update(Session).where(Session.id == session_id, Session.user_id == user_id)
        db.session.execute(proven.values(second_factor_at=sa.func.now()))
    end_other_sessions(user_id, session_id)
    _tell(user_id, MailKind.SECOND_FACTOR_ON)
    return _put_recovery_codes(user_id)


def replace_recovery_codes(user_id: UUID) -> list[str]:
    """New recovery codes in place of all earlier ones. Locks the factor's row and commits nothing. Raises
    SecondFactorMissing.
    """
    is_on = (SecondFactor.user_id == user_id) & SecondFactor.confirmed_at.is_not(None)
    if db.session.scalar(sa.select(SecondFactor.user_id).where(is_on).with_for_update()) is None:
        raise SecondFactorMissing("Your account has no second factor.")
    db.session.execute(sa.delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
    return _put_recovery_codes(user_id)


def switch_off(user_id: UUID) -> None:
    """Remove the second factor and its recovery codes; no session has it from then on. Commits nothing. Raises
    SecondFactorMissing.
    """
    removed = sa.delete(SecondFactor).where(SecondFactor.user_id == user_id).returning(SecondFactor.confirmed_at)
    row = db.session.execute(removed).one_or_none()
    if row is None or row.confirmed_at is None:
        raise SecondFactorMissing("The account has no second factor.")
    db.session.execute(sa.update(Session).where(Session.user_id == user_id).values(second_factor_at=None))
    _tell(user_id, MailKind.SECOND_FACTOR_OFF)


def _put_recovery_codes(user_id: UUID) -> list[str]:
    made = codes.new_recovery_codes()
    rows = [{"user_id": user_id, "code_hash": codes.recovery_hash(code)} for code in made]
    db.session.execute(sa.insert(RecoveryCode), rows)
    return made


def _tell(user_id: UUID, kind: MailKind) -> None:
    email = db.session.scalars(sa.select(User.email).where(User.id == user_id)).one()
    put_notice(kind, email, user_id)


def _decrypted(encrypted: bytes, user_id: UUID) -> str | None:
    secret = codes.decrypt(encrypted, user_id)
    if secret is None:
        log.error("second_factor_unreadable", user_id=str(user_id), hint="SECRET_KEY was changed")
    return secret
