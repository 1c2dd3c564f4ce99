"""Delivers the bound tenant's events to its webhook endpoints, in the order of each wallet, at least once.

A call claims one endpoint, reads, sends, and notes what came of it. A process that dies in between leaves the endpoint
to the next claim when its lease is over, and what it sent is sent again with the same ids.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
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
    claim,
    due_lanes,
    end_notice,
    open_lanes,
    settle,
)
from app.webhooks.notices import tell_admins
from app.webhooks.outcome import EVENTS_OF_A_LANE, at_once, done_of
from app.webhooks.replay import deliver_replay
from app.webhooks.round import Delivery, Group, Round
from app.webhooks.schedule import delay_after
from app.webhooks.sender import Sender

log = structlog.get_logger(__name__)

EXTENSION: Final = "webhooks"
EVENTS_AT_ONCE: Final = 100
LANES_AT_ONCE: Final = 20
# A turn that has taken longer begins no further round. A slow endpoint gets one round in a turn.
QUICK_SECONDS: Final = 1.0


class Turn(NamedTuple):
    """What a turn of an endpoint tells of the next one: how slow its slowest round was, by the mean of its messages,
    and the round to begin with, so that no kind of round keeps another one waiting for ever.
    """

    mean_seconds: float = 0.0
    next_round: int = 0


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
    rounds = (_deliver_lanes, deliver_replay, _deliver_new)
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
    lanes = due_lanes(endpoint, at_once(endpoint, LANES_AT_ONCE))
    try:
        pages = [(lane, _waiting_in(lane, endpoint)) for lane in lanes]
    except FeedTrimmed:
        return Done(endpoint.feed_id, endpoint.failures, disabled_reason="trimmed")
    groups = [Group(lane.key, lane.is_ordered, page.events, _attempts(lane, page.events)) for lane, page in pages]
    Round(delivery.sender, delivery.master_secret, endpoint).run(groups)
    done = done_of(endpoint, groups, "feed")
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


def _deliver_new(delivery: Delivery, endpoint: Claimed) -> Done:
    """Send the events behind the cursor, and move it. Events of a wallet with a lane wait there."""
    limit = at_once(endpoint, EVENTS_AT_ONCE)
    try:
        page = read_page(endpoint.position, limit, endpoint.types or None, feed_id=endpoint.feed_id)
    except FeedTrimmed:
        return Done(endpoint.feed_id, endpoint.failures, disabled_reason="trimmed")
    except FeedChanged:  # The tenant was restored since the claim.
        raise LeaseLost from None
    groups = _groups_of(page.events, endpoint)
    Round(delivery.sender, delivery.master_secret, endpoint).run(groups)
    done = done_of(endpoint, groups, "feed")
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
