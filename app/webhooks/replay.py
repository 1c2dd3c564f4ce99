"""A round of a replay: first movements that the feed has no more, from the ledger, and then events of the feed. A
failure holds up the replay, and nothing else.
"""

from collections.abc import Sequence
from typing import NamedTuple

import structlog

from app.events.errors import FeedTrimmed
from app.events.feed import FeedEvent, FeedPage, read_page
from app.events.replay import ReplayPlace, read_replay
from app.webhooks.lease import Claimed, Done, LedgerPart, Replay, ReplayChange, due_replay
from app.webhooks.outcome import EVENTS_OF_A_LANE, at_once, done_of
from app.webhooks.round import Delivery, Group, Round
from app.webhooks.schedule import delay_after

log = structlog.get_logger(__name__)


class _Stop(NamedTuple):
    """The first event of a group that is still to be sent: its place, how often it was tried, and how long it waits."""

    place: int
    attempts: int = 0
    delay_seconds: float = 0.0


def deliver_replay(delivery: Delivery, endpoint: Claimed) -> Done:
    """Go on with the replay that has waited longest."""
    replay = due_replay(endpoint)
    if replay is None:
        return Done(endpoint.feed_id, endpoint.failures)
    if replay.ledger is None:
        return _deliver_feed(delivery, endpoint, replay)
    return _deliver_ledger(delivery, endpoint, replay, replay.ledger)


def _deliver_ledger(delivery: Delivery, endpoint: Claimed, replay: Replay, ledger: LedgerPart) -> Done:
    """The position stands still meanwhile, so that the feed keeps what comes after it."""
    limit, types = at_once(endpoint, EVENTS_OF_A_LANE), replay.types or endpoint.types or None
    events, place = read_replay(ledger.place, ledger.until, limit=limit, types=types, is_beyond_feed=True)
    done, stop = _send(delivery, endpoint, replay, events)
    if stop.place < len(events):
        place = ReplayPlace.of(events[stop.place - 1]) if stop.place else ledger.place
    _note(done, replay, stop, replay.position, place)
    return done


def _deliver_feed(delivery: Delivery, endpoint: Claimed, replay: Replay) -> Done:
    page = _events_of(replay, endpoint)
    done, stop = _send(delivery, endpoint, replay, page.events)
    all_passed = stop.place == len(page.events)
    _note(done, replay, stop, page.position if all_passed else page.events[stop.place].position - 1, None)
    return done


def _events_of(replay: Replay, endpoint: Claimed) -> FeedPage:
    limit = at_once(endpoint, EVENTS_OF_A_LANE)
    try:
        page = read_page(replay.position, limit, replay.types or endpoint.types or None)
    except FeedTrimmed as error:
        log.warning(
            "webhook_events_trimmed", endpoint=str(endpoint.id), replay=str(replay.id), position=replay.position
        )
        return FeedPage(endpoint.feed_id, [], int(error.members["trimmedTo"]))
    events = [event for event in page.events if event.position <= replay.until_position]
    return FeedPage(page.feed_id, events, min(page.position, replay.until_position))


def _send(delivery: Delivery, endpoint: Claimed, replay: Replay, events: Sequence[FeedEvent]) -> tuple[Done, _Stop]:
    group = Group(replay.id, True, events, replay.attempts)
    Round(delivery.sender, delivery.master_secret, endpoint).run([group])
    done = done_of(endpoint, [group], "replay")
    done.unparked = [event.id for event in group.delivered]
    return done, _stop_of(group)


def _stop_of(group: Group) -> _Stop:
    if group.failed is None:
        return _Stop(len(group.sent), 0 if group.sent else group.attempts)
    attempts = (group.attempts if len(group.sent) == 1 else 0) + 1
    delay = delay_after(attempts, group.failed.retry_after)
    if delay is None:  # It was tried for the last time.
        return _Stop(len(group.sent))
    return _Stop(len(group.sent) - 1, attempts, delay.total_seconds())


def _note(done: Done, replay: Replay, stop: _Stop, position: int, place: ReplayPlace | None) -> None:
    change = ReplayChange(replay.id, position, stop.attempts, len(done.unparked), stop.delay_seconds)
    if place is None:
        change.ends_ledger = True
    else:
        change.ledger_at, change.ledger_wallet_id, change.ledger_seq = place.at, place.wallet_id, place.seq
    done.replays.append(change)
