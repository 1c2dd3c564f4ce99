"""`python -m scripts.replay_events` publishes a period once more, or says from when on to do it again."""

import pytest
import redis
from flask import Flask

from app.brokers.publisher import EVENTS
from app.events.feed import FeedEvent
from tenant_schemas.testing.plugin import Database
from tests.factories.brokers import RedisBroker, needs_redis
from tests.factories.feed import Feed
from tests.factories.people import People
from tests.factories.ports import free_port
from tests.factories.script_runner import Run

LONG_AGO = "2001-01-01T00:00:00+00:00"


@pytest.fixture
def events(own: People, fresh_app: Flask) -> list[FeedEvent]:
    """All events of the tenant."""
    return Feed(fresh_app, "eur").of(own.wallet(own.make(eur="member"), "eur", balance_minor=5))


@needs_redis
def test_a_period_is_published(
    run: Run,
    fresh_database: Database,
    events: list[FeedEvent],
    redis_broker: RedisBroker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BROKER_URL", redis_broker.url)
    stream = f"{EVENTS}:{fresh_database.tenant('eur').id}"
    with redis.Redis(port=redis_broker.port) as client:
        client.delete(stream)  # In all copies of the template the tenant has the same id.
    done = run("replay_events", "eur", "--from", LONG_AGO)
    assert (done.exit_code, done.output) == (0, f"Published {len(events)} events.\n")
    only = run("replay_events", "eur", "--from", LONG_AGO, "--type", "wallet.opened.v1", "--to", "2100-01-01T00:00:00Z")
    assert only.output == "Published 1 events.\n"
    with redis.Redis(port=redis_broker.port, decode_responses=True) as client:
        got = client.xrange(stream)
    assert [told["id"] for _, told in got] == [str(event.id) for event in (*events, events[0])]


def test_a_broker_that_is_away_is_told_with_the_moment_to_go_on_from(
    run: Run, events: list[FeedEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert events
    monkeypatch.setenv("BROKER_URL", f"redis://127.0.0.1:{free_port()}")
    done = run("replay_events", "eur", "--from", LONG_AGO)
    assert done.exit_code == 1
    assert "Published 0 events." in done.output
    assert f"Go on with --from {LONG_AGO}" in done.output


@pytest.mark.parametrize(
    ("broker", "arguments", "told"),
    [
        ("", ("eur", "--from", LONG_AGO), "BROKER_URL is not set"),
        ("redis://127.0.0.1", ("nowhere", "--from", LONG_AGO), "nowhere"),
        ("redis://127.0.0.1", ("eur", "--from", "2026-01-01T00:00:00"), "is no moment"),
        ("redis://127.0.0.1", ("eur", "--from", LONG_AGO, "--type", "wallet.paid"), "wallet.paid"),
    ],
)
def test_wrong_arguments_exit_2(
    run: Run, monkeypatch: pytest.MonkeyPatch, broker: str, arguments: tuple[str, ...], told: str
) -> None:
    monkeypatch.setenv("BROKER_URL", broker)
    done = run("replay_events", *arguments)
    assert done.exit_code == 2
    assert told in done.output
