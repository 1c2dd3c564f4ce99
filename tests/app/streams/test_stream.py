"""When a stream ends, and what it sends while nothing happens."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from time import monotonic
from uuid import UUID, uuid4

import pytest

from app.events.feed import FeedEvent, FeedPage
from app.streams import stream as module
from app.streams.stream import Listener, stream
from app.streams.watch import KEPT, FeedWatch, Head

FEED_ID = uuid4()
OWN, OTHER = uuid4(), uuid4()


def event(position: int, wallet_id: UUID = OWN, type_: str = "wallet.payment.posted.v1") -> FeedEvent:
    return FeedEvent(uuid4(), position, type_, wallet_id, {"position": position})


@pytest.fixture
def watch() -> FeedWatch:
    return FeedWatch(Head(FEED_ID, 10))


@pytest.fixture
def listener() -> Listener:
    def no_page(after: int) -> FeedPage:
        raise AssertionError("The database is not needed.")

    return Listener(None, {OWN}, no_page, lambda: True, lambda: False, monotonic() + 60)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)


def positions(pieces: Iterator[bytes], count: int) -> list[int]:
    """Of the next so many events."""
    found: list[int] = []
    while len(found) < count:
        piece = next(pieces)
        if b"\ndata: " in piece:
            found.append(int(piece.partition(b"-")[2].partition(b"\n")[0]))
    return found


def test_only_events_of_the_listeners_wallets_are_sent(watch: FeedWatch, listener: Listener) -> None:
    pieces = stream(watch, 10, listener)
    watch.add([event(11), event(12, OTHER), event(13)])
    assert positions(pieces, 2) == [11, 13]


def test_only_events_of_the_wanted_types_are_sent(watch: FeedWatch, listener: Listener) -> None:
    pieces = stream(watch, 10, replace(listener, types=["wallet.frozen.v1"]))
    watch.add([event(11), event(12, type_="wallet.frozen.v1")])
    assert positions(pieces, 1) == [12]


def test_what_is_no_longer_in_memory_is_read_from_the_database(watch: FeedWatch, listener: Listener) -> None:
    asked: list[int] = []

    def read_page(after: int) -> FeedPage:
        asked.append(after)
        return FeedPage(FEED_ID, [event(5)], 10)

    pieces = stream(watch, 4, replace(listener, read_page=read_page))
    watch.add([event(11)])
    assert positions(pieces, 2) == [5, 11]
    assert asked == [4]


def test_a_stream_that_fell_behind_what_is_kept_misses_nothing(watch: FeedWatch, listener: Listener) -> None:
    events = [event(position) for position in range(11, 11 + KEPT + 5)]
    watch.add(events)
    page = FeedPage(FEED_ID, events[:200], events[199].position)
    pieces = stream(watch, 10, replace(listener, read_page=lambda _: page))
    assert positions(pieces, len(events)) == [each.position for each in events]


@pytest.mark.parametrize(
    "ending",
    [
        lambda listener: replace(listener, ends_at=monotonic()),
        lambda listener: replace(listener, has_gone=lambda: True),
        lambda listener: replace(listener, may_listen=lambda: False),
    ],
    ids=["token", "client", "membership"],
)
def test_a_stream_ends_with_token_client_and_membership(
    watch: FeedWatch,
    listener: Listener,
    ending: Callable[[Listener], Listener],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STANDING_SECONDS", 0.0)
    assert list(stream(watch, 10, ending(listener))) == [b"retry: 3000\nid: %b-10\n\n" % FEED_ID.hex.encode()]


def test_a_stream_ends_when_the_feed_can_not_be_read_any_more(watch: FeedWatch, listener: Listener) -> None:
    watch.end()
    assert len(list(stream(watch, 10, listener))) == 1


def test_a_quiet_stream_sends_heartbeats_that_move_the_clients_place(
    watch: FeedWatch, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.0)
    pieces = stream(watch, 10, listener)
    next(pieces)
    watch.add([event(11, OTHER)])
    assert any(next(pieces) == b": \nid: %b-11\n\n" % FEED_ID.hex.encode() for _ in range(3))
