"""Delivers the bound tenant's events to its webhook endpoints, in the order of each wallet, at least once.

A call claims one endpoint, reads, sends, and notes what came of it. A process that dies in between leaves the endpoint
to the next claim when its lease is over, and what it sent is sent again with the same ids.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from time import monotonic
from typing import Final, NamedTuple, cast
from uuid import UUID

import structlog
from flask import Flask

from app.config import Settings
from app.current import current_app
from app.events.errors import FeedChanged, FeedTrimmed
from app.events.feed import FeedEvent, FeedPage, read_page
from app.webhooks.addresses import AddressRules
from app.webhooks.lease import (
    Claimed,
    Done,
    Lane,
    LaneChange,
    LeaseLost,
    LoggedAttempt,
    Parked,
    Replay,
    ReplayChange,
    claim,
    due_lanes,
    due_replay,
    end_notice,
    open_lanes,
    settle,
)
from app.webhooks.notices import tell_admins
from app.webhooks.round import GONE, Group, Round, Sent
from app.webhooks.schedule import FAILURES_BEFORE_PAUSE, delay_after, pause_after
from app.webhooks.sender import Sender
from tenant_schemas.context import current_tenant

log = structlog.get_logger(__name__)

EXTENSION: Final = "webhooks"
EVENTS_AT_ONCE: Final = 100
LANES_AT_ONCE: Final = 20
EVENTS_OF_A_LANE: Final = 20
# A turn that has taken longer begins no further round. A slow endpoint gets one round in a turn.
QUICK_SECONDS: Final = 1.0


class Turn(NamedTuple):
    """What a turn of an endpoint tells of the next one: how slow its slowest round was, by the mean of its messages,
    and the round to begin with, so that no kind of round keeps another one waiting for ever.
    """

    mean_seconds: float = 0.0
    next_round: int = 0


@dataclass(frozen=True, slots=True)
class Delivery:
    """How this process delivers webhooks."""

    sender: Sender
    master_secret: str = field(repr=False)


def init_app(app: Flask, settings: Settings) -> None:
    rules = AddressRules.of(settings.webhook_allowed_networks, allow_http=settings.webhook_allow_http)
    app.extensions[EXTENSION] = Delivery(Sender(rules), settings.tenant_secret)


def own_delivery() -> Delivery:
    """How this application delivers."""
    return cast(Delivery, current_app.extensions[EXTENSION])


def deliver_due(endpoint_id: UUID | None = None, first_round: int = 0) -> Turn | None:
    """Deliver to this endpoint of the bound tenant, or to the one that has waited longest; None if it is not due. Call
    it again until then. A call has up to three rounds (lanes, a replay, new events) of a bounded number of messages,
    each of which begins none ten seconds after the name was resolved; after QUICK_SECONDS it begins no round. Commits
    after each round; holds no db transaction while it sends.
    """
    delivery, endpoint = own_delivery(), claim(endpoint_id)
    if endpoint is None:
        return None
    if endpoint.notice_owed:
        tell_admins(endpoint)
        end_notice(endpoint)
        return Turn(0.0, first_round)
    try:
        return _deliver_rounds(delivery, endpoint, first_round)
    except LeaseLost:
        log.warning("webhook_lease_lost", endpoint=str(endpoint.id))
        return Turn(0.0, first_round)


def _deliver_rounds(delivery: Delivery, endpoint: Claimed, first_round: int) -> Turn:
    """Raises LeaseLost. Ends the lease with the last round."""
    rounds = (_deliver_lanes, _deliver_replay, _deliver_new)
    quick_until, mean_seconds = monotonic() + QUICK_SECONDS, 0.0
    for number in range(first_round, first_round + len(rounds)):
        done = rounds[number % len(rounds)](delivery, endpoint)
        mean_seconds = max(mean_seconds, done.mean_seconds)
        is_last = (
            number == first_round + len(rounds) - 1
            or done.pause_seconds > 0
            or done.disabled_reason is not None
            or monotonic() > quick_until
        )
        if is_last or done.attempts or done.lanes or done.replays or done.position is not None:
            settle(endpoint, done, keeps_lease=not is_last)
        if is_last:
            break
        position = endpoint.position if done.position is None else done.position
        endpoint = replace(endpoint, failures=done.failures, position=position)
    return Turn(mean_seconds, (number + 1) % len(rounds))


def _deliver_lanes(delivery: Delivery, endpoint: Claimed) -> Done:
    """Try the events at the heads of the due lanes, and what waits behind them."""
    lanes = due_lanes(endpoint, _at_once(endpoint, LANES_AT_ONCE))
    try:
        pages = [(lane, _waiting_in(lane, endpoint)) for lane in lanes]
    except FeedTrimmed:
        return Done(endpoint.feed_id, endpoint.failures, disabled_reason="trimmed")
    groups = [Group(lane.key, lane.is_ordered, page.events, _attempts(lane, page.events)) for lane, page in pages]
    Round(delivery.sender, delivery.master_secret, endpoint).run(groups)
    done = _done(endpoint, groups, "feed")
    for group, (_, page) in zip(groups, pages, strict=True):
        done.lanes.append(_lane_after(group, page.position, endpoint))
    return done


def _waiting_in(lane: Lane, endpoint: Claimed) -> FeedPage:
    """The events that wait in a lane. The page's position is the last that was looked at. Raises FeedTrimmed."""
    limit = EVENTS_OF_A_LANE if lane.is_ordered else 1
    wallets = [lane.key] if lane.is_ordered else None
    types = endpoint.types or None
    page = read_page(lane.position - 1, limit, types if lane.is_ordered else None, wallets)
    last = endpoint.position if lane.is_ordered else lane.position
    events = [event for event in page.events if event.position <= last]
    return FeedPage(page.feed_id, events, min(page.position, last))


def _attempts(lane: Lane, events: Sequence[FeedEvent]) -> int:
    return lane.attempts if events and events[0].position == lane.position else 0


def _lane_after(group: Group, looked_at: int, endpoint: Claimed) -> LaneChange:
    """The lane as it is after a round: it waits for its first event that was not delivered."""
    change = LaneChange(group.key, group.is_ordered)
    failed = group.failed
    if failed is not None:
        attempts = (group.attempts if len(group.sent) == 1 else 0) + 1
        delay = delay_after(attempts, failed.retry_after)
        if delay is not None:
            position, seconds = failed.event.position, delay.total_seconds()
            return replace(change, position=position, attempts=attempts, delay_seconds=seconds)
        looked_at = failed.event.position if len(group.sent) < len(group.events) else looked_at
    elif len(group.sent) < len(group.events):  # The round ended before its turn.
        attempts = 0 if group.sent else group.attempts
        return replace(change, position=group.events[len(group.sent)].position, attempts=attempts)
    is_empty = not group.is_ordered or looked_at >= endpoint.position
    return change if is_empty else replace(change, position=looked_at + 1)


def _deliver_replay(delivery: Delivery, endpoint: Claimed) -> Done:
    """Go on with the replay that has waited longest. A failure holds it up, and nothing else."""
    replay = due_replay(endpoint)
    if replay is None:
        return Done(endpoint.feed_id, endpoint.failures)
    page = _events_of(replay, endpoint)
    group = Group(replay.id, True, page.events, replay.attempts)
    Round(delivery.sender, delivery.master_secret, endpoint).run([group])
    done = _done(endpoint, [group], "replay")
    done.unparked = [event.id for event in group.delivered]
    done.replays.append(_replay_after(group, page.position, len(done.unparked)))
    return done


def _events_of(replay: Replay, endpoint: Claimed) -> FeedPage:
    limit = _at_once(endpoint, EVENTS_OF_A_LANE)
    try:
        page = read_page(replay.position, limit, replay.types or endpoint.types or None)
    except FeedTrimmed as error:
        log.warning(
            "webhook_events_trimmed", endpoint=str(endpoint.id), replay=str(replay.id), position=replay.position
        )
        return FeedPage(endpoint.feed_id, [], int(error.members["trimmedTo"]))
    events = [event for event in page.events if event.position <= replay.until_position]
    return FeedPage(page.feed_id, events, min(page.position, replay.until_position))


def _replay_after(group: Group, looked_at: int, delivered: int) -> ReplayChange:
    failed = group.failed
    if failed is not None:
        attempts = (group.attempts if len(group.sent) == 1 else 0) + 1
        delay = delay_after(attempts, failed.retry_after)
        if delay is not None:
            return ReplayChange(group.key, failed.event.position - 1, attempts, delivered, delay.total_seconds())
        return ReplayChange(group.key, failed.event.position, 0, delivered, 0.0)
    if len(group.sent) < len(group.events):
        attempts = 0 if group.sent else group.attempts
        return ReplayChange(group.key, group.events[len(group.sent)].position - 1, attempts, delivered, 0.0)
    return ReplayChange(group.key, looked_at, 0, delivered, 0.0)


def _deliver_new(delivery: Delivery, endpoint: Claimed) -> Done:
    """Send the events behind the cursor, and move it. Events of a wallet with a lane wait there."""
    limit = _at_once(endpoint, EVENTS_AT_ONCE)
    try:
        page = read_page(endpoint.position, limit, endpoint.types or None, feed_id=endpoint.feed_id)
    except FeedTrimmed:
        return Done(endpoint.feed_id, endpoint.failures, disabled_reason="trimmed")
    except FeedChanged:  # The tenant was restored since the claim.
        raise LeaseLost from None
    groups = _groups_of(page.events, endpoint)
    Round(delivery.sender, delivery.master_secret, endpoint).run(groups)
    done = _done(endpoint, groups, "feed")
    done.position = page.position
    behind = replace(endpoint, position=page.position)
    changes = [_lane_after(group, page.position, behind) for group in groups]
    done.lanes = [change for change in changes if change.position is not None]
    return done


def _groups_of(events: Sequence[FeedEvent], endpoint: Claimed) -> list[Group]:
    """One group for each wallet without a lane, or for each event if there is no order."""
    wallets = {event.wallet_id for event in events if event.wallet_id is not None}
    held_up = open_lanes(endpoint, list(wallets)) if wallets else set()
    grouped: dict[tuple[UUID, bool], list[FeedEvent]] = defaultdict(list)
    for event in events:
        if event.wallet_id in held_up:
            continue
        is_ordered = endpoint.is_ordered and event.wallet_id is not None
        grouped[(event.wallet_id if is_ordered and event.wallet_id else event.id, is_ordered)].append(event)
    return [Group(key, is_ordered, found) for (key, is_ordered), found in grouped.items()]


def _at_once(endpoint: Claimed, most: int) -> int:
    """An endpoint that fails altogether gets one message to try."""
    return 1 if endpoint.failures >= FAILURES_BEFORE_PAUSE else most


def _done(endpoint: Claimed, groups: Sequence[Group], source: str) -> Done:
    """What is common to all rounds: counts, the pause, the log, and what is parked."""
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
