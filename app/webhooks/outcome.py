"""What came of a round of deliveries, as far as it is alike for lanes, replays and new events: counts, the pause, the
log, and what is parked.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog

from app.webhooks.lease import Claimed, Done, LoggedAttempt, Parked
from app.webhooks.round import GONE, Group, Sent
from app.webhooks.schedule import FAILURES_BEFORE_PAUSE, delay_after, pause_after
from tenant_schemas.context import current_tenant

log = structlog.get_logger(__name__)

EVENTS_OF_A_LANE: Final = 20


def at_once(endpoint: Claimed, most: int) -> int:
    """An endpoint that fails altogether gets one message to try."""
    return 1 if endpoint.failures >= FAILURES_BEFORE_PAUSE else most


def done_of(endpoint: Claimed, groups: Sequence[Group], source: str) -> Done:
    """What is to be noted of these groups. `source` is the log's word for where their events come from."""
    sent = sorted((each for group in groups for each in group.sent), key=lambda each: each.at)
    failed = [each for each in sent if not each.answer.is_success]
    delivered = len(sent) - len(failed)
    done = Done(
        endpoint.feed_id,
        failures=0 if delivered else endpoint.failures + len(failed),
        delivered=delivered,
        is_failing=bool(failed),
        disabled_reason="gone" if any(each.answer.status == GONE for each in failed) else None,
    )
    done.mean_seconds = sum(each.answer.duration_ms for each in sent) / 1000 / max(1, len(sent))
    pauses = [pause_after(done.failures) if failed else None, *(each.retry_after for each in failed)]
    done.pause_seconds = max((pause or timedelta() for pause in pauses), default=timedelta()).total_seconds()
    for group in groups:
        _log_attempts(done, group, source, endpoint)
    return done


def _log_attempts(done: Done, group: Group, source: str, endpoint: Claimed) -> None:
    """A first attempt that succeeds leaves no row, unless it is a replay's."""
    for index, sent in enumerate(group.sent):
        attempt = (group.attempts if index == 0 else 0) + 1
        is_parked = not sent.answer.is_success and delay_after(attempt, None) is None
        if is_parked:
            # An event that was made again from the ledger is not kept: its period can be replayed again.
            if sent.event.position:
                done.parked.append(Parked(sent.event.id, sent.event.type, sent.event.position))
            about = {"endpoint": str(endpoint.id), "event_id": str(sent.event.id)}
            log.warning("webhook_event_parked", tenant=current_tenant().slug, **about)
        if not sent.answer.is_success or attempt > 1 or source != "feed":
            outcome = "parked" if is_parked else "delivered" if sent.answer.is_success else "failed"
            done.attempts.append(_logged(sent, source, attempt, outcome))


def _logged(sent: Sent, source: str, attempt: int, outcome: str) -> LoggedAttempt:
    answer = sent.answer
    return LoggedAttempt(
        event_id=sent.event.id,
        type=sent.event.type,
        source=source,
        attempt=attempt,
        at=sent.at,
        outcome=outcome,
        status=answer.status,
        failure=answer.failure,
        duration_ms=answer.duration_ms,
        answer=answer.text,
    )
