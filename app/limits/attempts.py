"""Limits of attempts to log in, to guess a code or a token, to change a password and to refresh a session, counted
over all processes.

Failed log-ins count for the account at one address, tightly, and for the account at all addresses, widely, so that slow
guessing from many addresses is bounded too. A device that has logged in before has counters and slots of its own: no
stranger can use them up. An account is counted under a keyed hash, whether or not it exists.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple
from uuid import UUID

from flask import Flask

from app.config import Settings
from app.current import current_app
from app.errors import Forbidden, Unauthenticated
from app.limits.concurrency import ConcurrencySlots
from app.limits.rate_limit import clear_attempts, client_address, count_attempt, hashed_account, take_attempt_back

SLOTS_EXTENSION: Final = "log_in_slots"


class Limit(NamedTuple):
    """What is counted, whose it is, and its rate."""

    name: str
    whose: str
    rate: str


def init_app(app: Flask, settings: Settings, slots: ConcurrencySlots) -> None:
    app.extensions[SLOTS_EXTENSION] = slots
    app.config["LOGIN_RATE_LIMIT"] = settings.login_rate_limit
    app.config["LOGIN_FAILURE_LIMIT"] = settings.login_failure_limit
    app.config["ACCOUNT_FAILURE_LIMIT"] = settings.account_failure_limit
    app.config["REFRESH_RATE_LIMIT"] = settings.refresh_rate_limit


@contextmanager
def log_in_attempt(email: str, device_id: UUID | None) -> Iterator[None]:
    """`with log_in_attempt(email, device_id):` around the check of a password or of a second factor. `device_id` is of
    a device that has logged in to this account before.

    The attempt is counted before the block, and the request may have to wait for a slot. If the block raises
    Unauthenticated or Forbidden, the attempt has failed; otherwise the counts of failures are taken back. Raises
    TooManyRequests or TooManyConcurrentRequests.
    """
    address, config = client_address(), current_app.config
    if device_id is None:
        count_attempt("address", address, config["LOGIN_RATE_LIMIT"])
        with _counting_failures(*_failures_of(email, address)), _slots().log_in(address):
            yield
    else:
        device = device_id.hex
        count_attempt("device", device, config["LOGIN_RATE_LIMIT"])
        failure = Limit("device-failures", device, config["LOGIN_FAILURE_LIMIT"])
        with _counting_failures(failure), _slots().known_log_in(device):
            yield


def forget_failures(email: str) -> None:
    """Forget the failed log-ins of the account, at all addresses together and at the client's. Call it for an owner
    who has proved to be one, for instance with a mailed token.
    """
    for limit in _failures_of(email, client_address()):
        clear_attempts(*limit)


@contextmanager
def password_attempt(session_or_user_id: UUID) -> Iterator[None]:
    """As `log_in_attempt`, for a caller who is logged in and must prove the password again. No log-in shares this
    count.
    """
    whose = session_or_user_id.hex
    failure = Limit("password", whose, current_app.config["LOGIN_FAILURE_LIMIT"])
    with _counting_failures(failure), _slots().known_log_in(whose):
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
    """`with token_attempt():` around the use of a mailed token. It counts for the client's address, because a wrong
    token names no account, unless the block ends without an error: a backend uses its users' tokens from one address.
    Raises TooManyRequests.
    """
    limit = Limit("account_address", client_address(), current_app.config["ACCOUNT_RATE_LIMIT"])
    count_attempt(*limit)
    yield
    take_attempt_back(*limit)


def count_reset_mail(email: str) -> None:
    """Count a mail for a forgotten password: for the account at the client's address, tightly, and for the account,
    widely. A stranger at one address uses up none of the owner's. The address alone has the wide rate of log-ins,
    because a backend asks for all its users from one. Raises TooManyRequests.
    """
    address, account, config = client_address(), hashed_account(email), current_app.config
    count_attempt("reset-address", address, config["LOGIN_RATE_LIMIT"])
    count_attempt("mail-address", f"{account}/{address}", config["MAIL_RATE_LIMIT"])
    count_attempt("mail", account, config["ACCOUNT_MAIL_LIMIT"])


def count_refresh(session_id: UUID | None) -> None:
    """Count a refresh for its session, which the refresh token must have proved; without one for the client's address.
    Raises TooManyRequests.
    """
    if session_id is None:
        count_attempt("refresh-address", client_address(), current_app.config["LOGIN_RATE_LIMIT"])
    else:
        count_attempt("session", session_id.hex, current_app.config["REFRESH_RATE_LIMIT"])


def count_log_out(session_id: UUID | None) -> None:
    """As `count_refresh`, for a log-out, so that nobody repeats it without end. Refreshes do not share this count."""
    if session_id is None:
        count_refresh(None)
    else:
        count_attempt("log-out", session_id.hex, current_app.config["REFRESH_RATE_LIMIT"])


def _failures_of(email: str, address: str) -> tuple[Limit, Limit]:
    account, config = hashed_account(email), current_app.config
    return (
        Limit("account-address", f"{account}/{address}", config["LOGIN_FAILURE_LIMIT"]),
        Limit("account", account, config["ACCOUNT_FAILURE_LIMIT"]),
    )


@contextmanager
def _counting_failures(*limits: Limit) -> Iterator[None]:
    """The counts come before the block: of many attempts at once, no more are let in than the limit allows."""
    counted: list[Limit] = []
    has_failed = False
    try:
        for limit in limits:
            count_attempt(*limit)
            counted.append(limit)
        yield
    except (Unauthenticated, Forbidden):
        has_failed = True
        raise
    finally:
        for limit in () if has_failed else counted:
            take_attempt_back(*limit)


def _slots() -> ConcurrencySlots:
    slots: ConcurrencySlots = current_app.extensions[SLOTS_EXTENSION]
    return slots
