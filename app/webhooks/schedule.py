"""When a failed webhook is sent again: the schedule of an event, and the pause of an endpoint that fails altogether."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from random import random
from typing import Final

# After the first attempt, the second one follows in 5 seconds, and so on.
DELAYS: Final = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
MAX_ATTEMPTS: Final = len(DELAYS) + 1
JITTER: Final = 0.1
# So many failures of an endpoint in a row, without a success, pause all that goes to it.
FAILURES_BEFORE_PAUSE: Final = 5
LONGEST_PAUSE: Final = timedelta(minutes=5)
LONGEST_RETRY_AFTER: Final = timedelta(hours=24)


def delay_after(attempts: int, retry_after: timedelta | None, chance: Callable[[], float] = random) -> timedelta | None:
    """The delay after this many failed attempts of an event, not shorter than the endpoint asks; None after the last:
    the event is parked.
    """
    if attempts >= MAX_ATTEMPTS:
        return None
    planned = DELAYS[attempts - 1] * (1 + JITTER * chance())
    return max(planned, retry_after or timedelta())


def pause_after(failures: int) -> timedelta | None:
    """For how long an endpoint with this many failures in a row gets nothing; None if it goes on."""
    beyond = failures - FAILURES_BEFORE_PAUSE
    if beyond < 0:
        return None
    return min(DELAYS[0] * (1 << min(beyond, 16)), LONGEST_PAUSE)


def retry_after_of(header: str | None, now: datetime) -> timedelta | None:
    """The delay that Retry-After asks for (RFC 9110, 10.2.3), at most a day; None if it says nothing valid."""
    text = (header or "").strip()
    if re.fullmatch("[0-9]{1,10}", text, re.ASCII):
        asked = timedelta(seconds=min(int(text), int(LONGEST_RETRY_AFTER.total_seconds())))
    else:
        try:
            asked = _aware(parsedate_to_datetime(text)) - now
        except (ValueError, OverflowError):
            return None
    return min(max(asked, timedelta()), LONGEST_RETRY_AFTER)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
