"""Failed events are sent again by the schedule, later if the endpoint asks, and never for ever."""

from datetime import UTC, datetime, timedelta

import pytest

from app.webhooks.schedule import DELAYS, MAX_ATTEMPTS, delay_after, pause_after, retry_after_of

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def test_ten_attempts_in_three_days() -> None:
    planned = [delay_after(attempts, None, lambda: 0.0) for attempts in range(1, MAX_ATTEMPTS + 1)]
    assert planned == [*DELAYS, None]
    assert timedelta(days=3) < sum(DELAYS, timedelta()) < timedelta(days=4)


def test_jitter_lengthens_a_delay_by_a_tenth_at_most() -> None:
    assert delay_after(1, None, lambda: 1.0) == DELAYS[0] * 1.1


def test_an_endpoint_may_ask_for_a_longer_delay_but_for_no_shorter_one() -> None:
    assert delay_after(1, timedelta(hours=1), lambda: 0.0) == timedelta(hours=1)
    assert delay_after(3, timedelta(seconds=1), lambda: 0.0) == DELAYS[2]
    assert delay_after(MAX_ATTEMPTS, timedelta(hours=1)) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("Mon, 30 Nov 2026 12:01:00 GMT", 60),
        ("Mon, 30 Nov 2026 11:00:00 GMT", 0),
        ("Mon, 30 Nov 2026 12:01:00 -0000", 60),
        ("9999999999", 86_400),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: int) -> None:
    assert retry_after_of(header, NOW) == timedelta(seconds=seconds)


@pytest.mark.parametrize("header", [None, "", "soon", "-1", "1.5", "١", "99999999999", "Mon, 99 Nov 2026 12:00:00 GMT"])
def test_other_values_ask_for_nothing(header: str | None) -> None:
    assert retry_after_of(header, NOW) is None


def test_an_endpoint_that_fails_altogether_rests_for_five_minutes_at_most() -> None:
    assert [pause_after(failures) for failures in (0, 4)] == [None, None]
    assert [pause_after(failures) for failures in (5, 6, 11, 10_000)] == [
        timedelta(seconds=5),
        timedelta(seconds=10),
        timedelta(minutes=5),
        timedelta(minutes=5),
    ]
