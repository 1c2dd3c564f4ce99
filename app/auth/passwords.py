"""Passwords: Argon2id (RFC 9106) with the library's parameters. A hash takes 64 MiB, so a process makes one at a time.

A hash is made in a thread of its own, which may use all cores but one and has a low priority. Argon2's own threads
inherit both from it. So hashing, however much of it there is in however many processes, leaves one core to other work,
and gives way to other work on the rest. A lock over all processes would be weaker: one hash has four threads, which
occupy two cores at once.
"""

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from app.errors import Invalid

# The hash of a random secret, with the same parameters: an unknown address costs as much as a wrong password.
UNKNOWN_USER_HASH = "$argon2id$v=19$m=65536,t=3,p=4$U5XlvsLM2jNV5Rk1monl6A$5z9fgF6CBuDuJn8LM0lvp/uJfXzaO4yplfPyAdBCdpQ"
LOW_PRIORITY = 5  # of nice(2): a third of the time of a thread with normal priority, if both want the same core

Result = TypeVar("Result")
_hasher = PasswordHasher()
_one_at_a_time = Lock()


def refuse_obvious_password(password: str, *known: str | None, field: str = "newPassword") -> None:
    """Raises Invalid for a password that is the account's own address, a part of it, or a name. `known` are these."""
    obvious = {text.strip().casefold() for text in known if text}
    obvious |= {text.partition("@")[0] for text in obvious}
    if password.strip().casefold() in obvious:
        raise Invalid.at(field, "obvious_password", "Choose a password that is not your address and not your name.")


def hash_password(password: str) -> str:
    return _in_background(lambda: _hasher.hash(password))


def is_right(password: str, password_hash: str | None) -> bool:
    """Whether the password matches the hash. Without a hash it takes the same time and returns False."""

    def verify() -> bool:
        try:
            return _hasher.verify(password_hash or UNKNOWN_USER_HASH, password) and password_hash is not None
        except (VerificationError, InvalidHashError):
            return False

    return _in_background(verify)


def _in_background(work: Callable[[], Result]) -> Result:
    with _one_at_a_time, ThreadPoolExecutor(1, initializer=_give_way) as thread:
        return thread.submit(work).result()


def _give_way() -> None:
    """Restrict the calling thread. Only Linux can restrict one thread of a process."""
    if sys.platform == "linux":
        cores = os.sched_getaffinity(0)
        if len(cores) > 1:
            os.sched_setaffinity(0, cores - {min(cores)})
        os.setpriority(os.PRIO_PROCESS, 0, LOW_PRIORITY)
