"""Limits of attempts to log in, to change a password and to refresh a session, counted over all processes.

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
