"""What requests note for the metrics, at the cost of an append to a list. `move_observations` moves the notes into the
metrics, outside of every request. A process that is killed loses those that it has not moved.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from threading import Lock
from time import perf_counter
from typing import Any, Final, Protocol, TypeVar

from flask import Flask, Response
from prometheus_client import Counter, Histogram

from app.current import current_globals, current_request
from app.errors import ServiceError
from app.metrics.definitions import MOVED_MINOR, POSTING_SECONDS, POSTINGS, REQUEST_SECONDS

Observation = tuple[Counter | Histogram, tuple[str, ...], float]

# If nothing moves them, the oldest are forgotten.
MOST_OBSERVATIONS: Final = 100_000
STATUS_CLASSES: Final = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")
POSTED: Final = "posted"
REPLAYED: Final = "replayed"
FAILED: Final = "failed"  # by an error that is no refusal: the outcome may be unknown
_AMOUNT_MINOR: Final[Callable[[Any], int]] = attrgetter("amount_minor")
_moving: Final = Lock()


class Posted(Protocol):
    """What a posting answers."""

    @property
    def currency(self) -> str: ...


Answer = TypeVar("Answer", bound=Posted)


@dataclass(eq=False, slots=True)
class Observations:
    """What this process noted and did not move yet. In a process that serves no metrics, `are_on` is false and nothing
    is noted.
    """

    are_on: bool = False
    noted: deque[Observation] = field(default_factory=lambda: deque(maxlen=MOST_OBSERVATIONS))


OBSERVATIONS: Final = Observations()


def init_app(app: Flask) -> None:
    """Note each request of this application when its answer begins. Call it before other modules register functions
    that run after requests: those run before this one.
    """
    OBSERVATIONS.are_on = True
    app.after_request(_note_request)


def count(counter: Counter, *labels: str, number: float = 1) -> None:
    """Add to a counter."""
    if OBSERVATIONS.are_on:
        OBSERVATIONS.noted.append((counter, labels, number))


def observe(histogram: Histogram, *labels: str, value: float) -> None:
    """Add a value to a histogram."""
    if OBSERVATIONS.are_on:
        OBSERVATIONS.noted.append((histogram, labels, value))


def observed_posting(
    type_: str,
    post: Callable[[], tuple[Answer, bool]],
    amount_minor: Callable[[Any], int] = _AMOUNT_MINOR,
) -> tuple[Answer, bool]:
    """The answer of `post`, which posts one movement of this type and says whether an earlier request posted it. Its
    time, its outcome and its amount are noted. Raises what `post` raises; that is noted too.
    """
    if not OBSERVATIONS.are_on:
        return post()
    note, started = OBSERVATIONS.noted.append, perf_counter()
    try:
        answer = post()
    except ServiceError as refusal:
        note((POSTINGS, (type_, refusal.code), 1))
        raise
    except BaseException:
        note((POSTINGS, (type_, FAILED), 1))
        raise
    note((POSTING_SECONDS, (type_,), perf_counter() - started))
    posted, is_replayed = answer
    if is_replayed:
        note((POSTINGS, (type_, REPLAYED), 1))
    else:
        note((POSTINGS, (type_, POSTED), 1))
        note((MOVED_MINOR, (type_, posted.currency), abs(amount_minor(posted))))
    return answer


def _note_request(response: Response) -> Response:
    started, ended = current_globals().started, current_request()
    rule, status = ended.url_rule, STATUS_CLASSES[response.status_code // 100]
    # A method is the client's word unless a route has it.
    labels = (rule.rule, ended.method, status) if rule else ("other", "other", status)
    OBSERVATIONS.noted.append((REQUEST_SECONDS, labels, perf_counter() - started))
    return response


def move_observations() -> None:
    """Move what was noted into the metrics. Requests may go on noting."""
    noted = OBSERVATIONS.noted
    sums: dict[tuple[Counter, tuple[str, ...]], float] = {}
    observers: dict[tuple[Histogram, tuple[str, ...]], Callable[[float], None]] = {}
    with _moving:
        for _ in range(len(noted)):
            metric, labels, value = noted.popleft()
            if isinstance(metric, Counter):
                sums[metric, labels] = sums.get((metric, labels), 0) + value
                continue
            observe_value = observers.get((metric, labels))
            if observe_value is None:
                observe_value = observers[metric, labels] = (metric.labels(*labels) if labels else metric).observe
            observe_value(value)
        for (counter, labels), number in sums.items():
            (counter.labels(*labels) if labels else counter).inc(number)
