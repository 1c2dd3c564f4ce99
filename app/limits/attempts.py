"""Limits of attempts to log in, to guess a code or a token, to change a password and to refresh a session, counted
over all processes.

Failed log-ins count for the account at one address, tightly, and for the account at all addresses, widely, so that slow
guessing from many addresses is bounded too. A device that has logged in before has counters of its own, and its user
slots: no stranger can use them up, and a user with many devices has no more of them. An account is counted under a
keyed hash, whether or not it exists.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

from flask import Flask

from app.config import Settings
from app.current import current_app
from app.db import db
from app.errors import Forbidden, NotFound, Unauthenticated
from app.limits.concurrency import ConcurrencySlots
from app.limits.rate_limit import (
    clear_attempts,
    client_address,
    count_attempt,
    hashed_account,
    is_within,
    take_attempt_back,
)

SLOTS_EXTENSION: Final = "log_in_slots"


@dataclass(frozen=True, slots=True)
class Limit:
    """What is counted, whose it is, its rate, and whether the headers of an answer tell of it before it refuses."""

    name: str
    whose: str
    rate: str
    is_told: bool = True

    def count(self) -> None:
        """Raises TooManyRequests."""
        count_attempt(self.name, self.whose, self.rate, is_told=self.is_told)

    def take_back(self) -> None:
        take_attempt_back(self.name, self.whose, self.rate)

    def clear(self) -> None:
        clear_attempts(self.name, self.whose, self.rate)


class KnownDevice(Protocol):
    """A device that has logged in to an account before."""

    @property
    def id(self) -> UUID: ...

    @property
    def user_id(self) -> UUID: ...


def init_app(app: Flask, settings: Settings, slots: ConcurrencySlots) -> None:
    app.extensions[SLOTS_EXTENSION] = slots
    app.config["LOGIN_RATE_LIMIT"] = settings.login_rate_limit
    app.config["LOGIN_FAILURE_LIMIT"] = settings.login_failure_limit
    app.config["ACCOUNT_FAILURE_LIMIT"] = settings.account_failure_limit
    app.config["REFRESH_RATE_LIMIT"] = settings.refresh_rate_limit


def count_device(device_id: UUID) -> None:
    """Count a log-in for the device of a genuine token, before the database says whether it is known. Raises
    TooManyRequests.
    """
    count_attempt("device", device_id.hex, current_app.config["LOGIN_RATE_LIMIT"])


@contextmanager
def log_in_attempt(email: str, device: KnownDevice | None) -> Iterator[None]:
    """`with log_in_attempt(email, device):` around the check of a password. `device` has logged in to this account
    before, and is counted already.

    The attempt is counted before the block, and the request may have to wait for a slot. If the block raises
    Unauthenticated or Forbidden, the attempt has failed; otherwise the counts of failures are taken back. All devices
    of a user share a rate and a slot; what the failures of one device refuse does not count for the user. Raises
    TooManyRequests or TooManyConcurrentRequests.
    """
    address, config = client_address(), current_app.config
    if device is None:
        count_attempt("address", address, config["LOGIN_RATE_LIMIT"])
        with _counting_failures(*_failures_of(email, address)), _slots().log_in(address):
            yield
    else:
        failure, user = Limit("device-failures", device.id.hex, config["LOGIN_FAILURE_LIMIT"]), device.user_id.hex
        with _counting_failures(failure):
            count_attempt("user", user, config["LOGIN_RATE_LIMIT"])
            with _slots().known_log_in(user):
                yield


def forget_failures(email: str) -> None:
    """Forget the failed log-ins of the account, at all addresses together and at the client's. Call it for an owner
    who has proved to be one, for instance with a mailed token.
    """
    for limit in _failures_of(email, client_address()):
        limit.clear()


@contextmanager
def password_attempt(user_id: UUID, session_id: UUID | None) -> Iterator[None]:
    """As `log_in_attempt`, for a caller who is logged in and must prove the password again. Failures count for the
    session, and no log-in shares this count. The slot is the user's, as at a log-in.
    """
    failure = Limit("password", (session_id or user_id).hex, current_app.config["LOGIN_FAILURE_LIMIT"])
    with _counting_failures(failure), _slots().known_log_in(user_id.hex):
        yield


@contextmanager
def code_attempt(user_id: UUID) -> Iterator[None]:
    """`with code_attempt(user_id):` around the check of a code of the second factor. Wrong codes count for the user, in
    an hour and in a day, and hold up no session. Codes of the authenticator and recovery codes share the counts. Raises
    TooManyRequests.

    RFC 4226, 7.3: a guess of v codes succeeds with a probability of v * s / 10^6, if s codes are accepted at a time: 3
    here, because clocks may differ. 20 wrong codes an hour alone would be 480 a day, 0.14 %, and 41 % a year. With 30
    a day it is 0.009 % a day and 3 % a year, for a guesser who has the password.
    """
    whose, config = str(user_id), current_app.config
    hourly = Limit("second_factor", whose, config["SECOND_FACTOR_RATE_LIMIT"])
    with _counting_failures(hourly, Limit("second_factor_day", whose, config["SECOND_FACTOR_DAILY_LIMIT"])):
        yield


@contextmanager
def token_attempt() -> Iterator[None]:
    """`with token_attempt():` around the use of a mailed token. One that the block does not find counts for the
    client's address, because it names no account. A good token always works: nobody can guess 256 bits, and junk from
    the address of a backend must hold up none of its users. Raises TooManyRequests in place of NotFound.

    The search's db transaction is rolled back before the count, which takes a connection: a request that held one and
    waited for another would stall all others.
    """
    try:
        yield
    except NotFound:
        db.session.rollback()
        count_attempt("account_address", client_address(), current_app.config["ACCOUNT_RATE_LIMIT"])
        raise


def count_reset_mail(email: str) -> None:
    """Count a mail for a forgotten password: for the account at the client's address, tightly, and for the account,
    widely. A stranger at one address uses up none of the owner's. The address alone has the wide rate of log-ins,
    because a backend asks for all its users from one. No answer tells how often others have asked for the account.
    Raises TooManyRequests.
    """
    address, account, config = client_address(), hashed_account(email), current_app.config
    count_attempt("reset-address", address, config["LOGIN_RATE_LIMIT"])
    count_attempt("mail-address", f"{account}/{address}", config["MAIL_RATE_LIMIT"])
    count_attempt("mail", account, config["ACCOUNT_MAIL_LIMIT"], is_told=False)


def count_refresh(session_id: UUID | None) -> None:
    """Count a refresh for its session, which the refresh token must have proved; without one for the client's address.
    Raises TooManyRequests.
    """
    if session_id is None:
        count_attempt("refresh-address", client_address(), current_app.config["LOGIN_RATE_LIMIT"])
    else:
        count_attempt("session", session_id.hex, current_app.config["REFRESH_RATE_LIMIT"])


@contextmanager
def log_out_attempt(session_id: UUID) -> Iterator[bool]:
    """`with log_out_attempt(session_id) as is_needed:` around the end of a session that a token has proved. False for a
    session that was logged out so often in a short time that one more costs a query for nothing. A block that fails
    counts nothing. Refreshes do not share this count, and no header tells of it.
    """
    limit = Limit("log-out", session_id.hex, current_app.config["REFRESH_RATE_LIMIT"])
    is_needed = is_within(limit.name, limit.whose, limit.rate)
    try:
        yield is_needed
    except Exception:
        limit.take_back()
        raise


def _failures_of(email: str, address: str) -> tuple[Limit, Limit]:
    """The second one is not told: it has the failures of strangers."""
    account, config = hashed_account(email), current_app.config
    return (
        Limit("account-address", f"{account}/{address}", config["LOGIN_FAILURE_LIMIT"]),
        Limit("account", account, config["ACCOUNT_FAILURE_LIMIT"], is_told=False),
    )


@contextmanager
def _counting_failures(*limits: Limit) -> Iterator[None]:
    """The counts come before the block: of many attempts at once, no more are let in than the limit allows."""
    counted: list[Limit] = []
    has_failed = False
    try:
        for limit in limits:
            limit.count()
            counted.append(limit)
        yield
    except (Unauthenticated, Forbidden):
        has_failed = True
        raise
    finally:
        for limit in () if has_failed else counted:
            limit.take_back()


def _slots() -> ConcurrencySlots:
    slots: ConcurrencySlots = current_app.extensions[SLOTS_EXTENSION]
    return slots
