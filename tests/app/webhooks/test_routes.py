"""An admin makes, changes, tests and ends webhooks over HTTP, sees secrets once, and gets lost events again."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.app.api.test_problems import faults_of, problem_of
from tests.factories.api import ID_OF_NOTHING, Api
from tests.factories.hooked import Hooked
from tests.factories.people import People, Person
from tests.factories.webhooks import Consumer, Reply

HOOKS = "/api/admin/webhooks"
ALL_TIME = {"from": "2000-01-01T00:00:00Z", "to": "2999-01-01T00:00:00Z"}


@pytest.fixture
def admin(people: People) -> Person:
    return people.make(eur="admin", km="admin")


def made(api: Api, admin: Person, url: str, **chosen: Any) -> dict[str, Any]:
    answer = api.post(HOOKS, admin, "eur", json={"url": url} | chosen)
    assert answer.status_code == 201, answer.text
    return dict(answer.json)


def actions_of(api: Api, admin: Person, webhook_id: str) -> list[str]:
    entries = api.get("/api/admin/audit-log?limit=50", admin, "eur").json["items"]
    return [entry["action"] for entry in reversed(entries) if entry["subject"] == webhook_id]


def test_the_life_of_a_webhook_is_in_the_audit_log_without_its_query(
    api: Api, admin: Person, hooked: Hooked, consumer: Consumer
) -> None:
    answer = api.post(HOOKS, admin, "eur", json={"url": consumer.url("/hook?token=hidden")})
    webhook = answer.json
    path = f"{HOOKS}/{webhook['id']}"
    assert answer.headers["Location"] == path
    assert (webhook["types"], webhook["payload"], webhook["order"], webhook["status"]) == (
        [],
        "full",
        "wallet",
        "enabled",
    )
    changed = api.patch(path, admin, "eur", json={"types": ["order.placed.v1"]}, if_match='"1"')
    assert (changed.json["types"], changed.json["version"], changed.json["url"]) == (
        ["order.placed.v1"],
        2,
        webhook["url"],
    )
    assert api.post(f"{path}/disable", admin, "eur").json["disabledReason"] == "admin"
    assert api.post(f"{path}/enable", admin, "eur").json["status"] == "enabled"
    assert api.post(f"{path}/rotate", admin, "eur").json["rotatedAt"].endswith("Z")
    shown = api.get(path, admin, "eur").json
    assert (shown["heldUp"], shown["parked"]) == (0, 0)
    assert [each["id"] for each in api.get(HOOKS, admin, "eur").json["items"]] == [webhook["id"]]
    assert api.send("DELETE", path, admin, "eur").status_code == 204
    problem_of(api.get(path, admin, "eur"), 404, "webhook_not_found")
    verbs = ("create", "change", "disable", "enable", "rotate", "delete")
    assert actions_of(api, admin, webhook["id"]) == [f"webhook.{verb}" for verb in verbs]
    assert "hidden" not in api.get("/api/admin/audit-log?limit=50", admin, "eur").text


def test_the_secret_is_shown_when_it_is_made_and_never_again(
    api: Api, admin: Person, hooked: Hooked, consumer: Consumer
) -> None:
    webhook = made(api, admin, consumer.url())
    path = f"{HOOKS}/{webhook['id']}"
    rotated = api.post(f"{path}/rotate", admin, "eur").json["secret"]
    assert rotated != webhook["secret"]
    for answer in (api.get(path, admin, "eur"), api.get(HOOKS, admin, "eur"), api.post(f"{path}/enable", admin, "eur")):
        assert "whsec_" not in answer.text
        assert "secret" not in answer.json
    wallet_id = hooked.wallet()
    hooked.pay(wallet_id)
    hooked.deliver()
    for secret in (webhook["secret"], rotated):
        Webhook(secret).verify(consumer.received[-1].body, consumer.received[-1].headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(made(api, admin, consumer.url())["secret"]).verify(
            consumer.received[-1].body, consumer.received[-1].headers
        )


@pytest.mark.parametrize(
    "url", ["http:hooks.example", "https://127.0.0.1/", "https://a:b@hooks.example/", "https://[::1]:8443/", "ftp://x/"]
)
def test_a_url_that_must_not_be_asked_is_refused_when_it_is_chosen(api: Api, admin: Person, url: str) -> None:
    answer = api.post(HOOKS, admin, "eur", json={"url": url})
    assert faults_of(answer) == [("url", "url_not_allowed")]


def test_a_change_names_the_version_that_was_seen(api: Api, admin: Person, hooked: Hooked, consumer: Consumer) -> None:
    path = f"{HOOKS}/{made(api, admin, consumer.url())['id']}"
    tag = api.get(path, admin, "eur").headers["ETag"]
    assert api.patch(path, admin, "eur", json={"payload": "thin"}, if_match=tag).headers["ETag"] == '"2"'
    problem_of(api.patch(path, admin, "eur", json={"payload": "full"}, if_match=tag), 412, "version_mismatch")
    hooked.wallet()
    hooked.deliver()
    assert api.get(path, admin, "eur").json["version"] == 2, "a delivery is no change"


def test_a_tenant_has_fifty_webhooks_at_most(api: Api, admin: Person, hooked: Hooked, consumer: Consumer) -> None:
    hooked.run(
        "INSERT INTO webhook_endpoints (url, feed_id, position) SELECT 'https://x', gen_random_uuid(), 0"
        " FROM generate_series(1, 50)"
    )
    refused = api.post(HOOKS, admin, "eur", json={"url": consumer.url()})
    assert problem_of(refused, 409, "too_many_webhooks")["limit"] == 50
    assert api.post(HOOKS, admin, "km", json={"url": consumer.url()}).status_code == 201, "the other tenant is free"


def test_a_test_tells_at_once_what_came_of_it(api: Api, admin: Person, hooked: Hooked, consumer: Consumer) -> None:
    webhook = made(api, admin, consumer.url())
    path = f"{HOOKS}/{webhook['id']}"
    consumer.answer = lambda _: Reply(500, body=b"no such shop")
    failed = api.post(f"{path}/test", admin, "eur").json
    assert (failed["outcome"], failed["status"], failed["answer"]) == ("failed", 500, "no such shop")
    api.post(f"{path}/disable", admin, "eur")
    consumer.answer = lambda _: Reply(204, body=b"")
    assert api.post(f"{path}/test", admin, "eur").json["outcome"] == "delivered"
    got = consumer.take()[-1]
    assert Webhook(webhook["secret"]).verify(got.body, got.headers)["type"] == "webhook.test.v1"
    log = api.get(f"{path}/attempts", admin, "eur").json["items"]
    assert [(each["source"], each["outcome"]) for each in log] == [("test", "delivered"), ("test", "failed")]
    assert [each["outcome"] for each in api.get(f"{path}/attempts?outcome=failed", admin, "eur").json["items"]] == [
        "failed"
    ]
    problem_of(api.post(f"{HOOKS}/{ID_OF_NOTHING}/test", admin, "eur"), 404, "webhook_not_found")


def test_a_webhook_that_is_deleted_during_its_test_is_gone(
    api: Api, admin: Person, hooked: Hooked, consumer: Consumer
) -> None:
    webhook_id = made(api, admin, consumer.url())["id"]

    def delete(_: Any) -> Reply:
        hooked.run("SELECT webhook_delete_v1(%s)", (webhook_id,))
        return Reply()

    consumer.answer = delete
    problem_of(api.post(f"{HOOKS}/{webhook_id}/test", admin, "eur"), 404, "webhook_not_found")


def test_the_audit_log_tells_one_query_and_description_from_another(
    api: Api, admin: Person, hooked: Hooked, consumer: Consumer
) -> None:
    webhook_id = made(api, admin, consumer.url("/hook?token=hidden"))["id"]
    for change in ({"url": consumer.url("/hook?token=other")}, {"description": "Our shop"}):
        api.patch(f"{HOOKS}/{webhook_id}", admin, "eur", json=change, if_match="*")
    entries = api.get("/api/admin/audit-log?limit=50&action=webhook.change", admin, "eur").json["items"]
    changes = [entry for entry in entries if entry["subject"] == webhook_id]
    assert len(changes) == 2
    assert all(entry["before"] != entry["after"] for entry in changes)


def test_a_test_holds_no_connection_of_the_database(
    api: Api, admin: Person, hooked: Hooked, consumer: Consumer
) -> None:
    path = f"{HOOKS}/{made(api, admin, consumer.url())['id']}"
    seen: list[Any] = []

    def look(_: Any) -> Reply:
        seen.extend(hooked.rows("SELECT count(*) FROM pg_stat_activity WHERE starts_with(state, 'idle in')"))
        return Reply()

    consumer.answer = look
    api.post(f"{path}/test", admin, "eur")
    assert seen == [(0,)]


def test_a_parked_event_is_listed_and_can_be_sent_again(
    api: Api, admin: Person, hooked: Hooked, consumer: Consumer
) -> None:
    webhook = made(api, admin, consumer.url(), types=["wallet.deposit.posted.v1"])
    path, wallet_id = f"{HOOKS}/{webhook['id']}", hooked.wallet()
    (paid,) = hooked.pay(wallet_id)
    hooked.deliver()
    consumer.take()
    hooked.run(
        "INSERT INTO webhook_parked (endpoint_id, event_id, type, position) VALUES (%s, %s, 'x', 1)",
        (webhook["id"], paid),
    )
    assert [each["eventId"] for each in api.get(f"{path}/parked", admin, "eur").json["items"]] == [str(paid)]
    answer = api.post(f"{path}/events/{paid}/resend", admin, "eur")
    assert answer.status_code == 201
    hooked.deliver()
    assert [got.id for got in consumer.take()] == [str(paid)], "also if it is of no type of the webhook"
    replay = api.get(answer.headers["Location"], admin, "eur").json
    assert (replay["delivered"], replay["finishedAt"] is None) == (1, False)
    assert api.get(path, admin, "eur").json["parked"] == 0
    problem_of(api.post(f"{path}/events/{uuid4()}/resend", admin, "eur"), 404, "event_not_found")


def test_a_period_is_sent_again_by_type(api: Api, admin: Person, hooked: Hooked, consumer: Consumer) -> None:
    path, wallet_id = f"{HOOKS}/{made(api, admin, consumer.url())['id']}", hooked.wallet()
    hooked.pay(wallet_id, 2)
    hooked.deliver()
    first = {got.id for got in consumer.take() if got.event["type"] == "wallet.payment.posted.v1"}
    body = ALL_TIME | {"types": ["wallet.payment.posted.v1"]}
    replay = api.post(f"{path}/replay", admin, "eur", json=body)
    hooked.deliver()
    again = [got.id for got in consumer.take()]
    assert first < set(again) or first == set(again)
    shown = api.get(replay.headers["Location"], admin, "eur").json
    assert (shown["types"], shown["position"]) == (["wallet.payment.posted.v1"], shown["untilPosition"])
    nothing = ALL_TIME | {"to": "2001-01-01T00:00:00Z"}
    problem_of(api.post(f"{path}/replay", admin, "eur", json=nothing), 404, "event_not_found")
    assert faults_of(api.post(f"{path}/replay", admin, "eur", json=ALL_TIME | {"to": ALL_TIME["from"]})) == [
        ("to", "empty_period")
    ]
    other = f"{HOOKS}/{made(api, admin, consumer.url())['id']}/replays/{shown['id']}"
    problem_of(api.get(other, admin, "eur"), 404, "webhook_replay_not_found")


def test_replays_that_wait_are_limited(api: Api, admin: Person, hooked: Hooked, consumer: Consumer) -> None:
    webhook_id = made(api, admin, consumer.url())["id"]
    hooked.wallet()
    hooked.run(
        "INSERT INTO webhook_replays (endpoint_id, types, position, until_position)"
        " SELECT %s, '{}', 0, 1 FROM generate_series(1, 100)",
        (webhook_id,),
    )
    refused = api.post(f"{HOOKS}/{webhook_id}/replay", admin, "eur", json=ALL_TIME)
    assert problem_of(refused, 409, "too_many_webhook_replays")["limit"] == 100


def test_who_enables_after_the_feed_was_trimmed_says_that_events_are_missing(
    api: Api, admin: Person, hooked: Hooked, consumer: Consumer
) -> None:
    webhook_id = made(api, admin, consumer.url())["id"]
    path = f"{HOOKS}/{webhook_id}"
    hooked.wallet()
    head = hooked.feed.head()
    hooked.run("UPDATE events_head SET trimmed_to = position")
    try:
        hooked.deliver()
        assert hooked.get(UUID(webhook_id)).disabled_reason == "trimmed"
        problem_of(api.post(f"{path}/enable", admin, "eur"), 409, "webhook_events_trimmed")
        enabled = api.post(f"{path}/enable?skipTrimmed=true", admin, "eur").json
        assert (enabled["status"], enabled["position"]) == ("enabled", head.position)
        hooked.pay(hooked.wallet())
        hooked.deliver()
        assert consumer.take()
    finally:
        hooked.run("UPDATE events_head SET trimmed_to = %s", (head.trimmed_to,))


def test_what_waits_in_lanes_and_replays_is_not_lost_silently_when_it_was_trimmed(
    api: Api, admin: Person, hooked: Hooked, consumer: Consumer
) -> None:
    webhook_id, wallet_id = made(api, admin, consumer.url())["id"], hooked.wallet()
    path = f"{HOOKS}/{webhook_id}"
    hooked.deliver()
    head, (paid,) = hooked.feed.head(), hooked.pay(wallet_id)
    consumer.answer = lambda got: Reply(500 if got.id == str(paid) else 200)
    hooked.deliver()
    api.post(f"{path}/replay", admin, "eur", json=ALL_TIME)
    api.post(f"{path}/disable", admin, "eur")
    hooked.run("UPDATE events_head SET trimmed_to = position")
    try:
        hooked.run("UPDATE webhook_endpoints SET status = 'enabled', disabled_reason = NULL, disabled_at = NULL")
        hooked.pass_time(timedelta(days=1))
        hooked.deliver()
        assert hooked.get(UUID(webhook_id)).disabled_reason == "trimmed", "also if the feed was trimmed too early"
        problem_of(api.post(f"{path}/enable", admin, "eur"), 409, "webhook_events_trimmed")
        hooked.run("DELETE FROM webhook_replays")
        problem_of(api.post(f"{path}/enable", admin, "eur"), 409, "webhook_events_trimmed")
        assert api.post(f"{path}/enable?skipTrimmed=true", admin, "eur").status_code == 200
        (skipped,) = api.get(f"{path}/attempts?outcome=skipped", admin, "eur").json["items"]
        assert (skipped["eventId"], skipped["failure"]) == (str(wallet_id), "events_trimmed")
        consumer.take()
        new = hooked.pay(wallet_id)
        hooked.deliver()
        assert [got.id for got in consumer.take()] == [str(each) for each in new]
        assert hooked.get(UUID(webhook_id)).status == "enabled"
    finally:
        hooked.run("UPDATE events_head SET trimmed_to = %s", (head.trimmed_to,))


def test_the_log_is_paged_and_outlives_a_change(api: Api, admin: Person, hooked: Hooked, consumer: Consumer) -> None:
    path = f"{HOOKS}/{made(api, admin, consumer.url())['id']}"
    hooked.wallet()
    consumer.answer = lambda _: Reply(500)
    for _ in range(3):
        hooked.deliver()
        hooked.pass_time(timedelta(hours=1))
    first = api.get(f"{path}/attempts?limit=2", admin, "eur").json
    second = api.get(f"{path}/attempts?limit=2&cursor={first['nextCursor']}", admin, "eur").json
    tried = [each["attempt"] for each in (*first["items"], *second["items"])]
    assert tried == [3, 2, 1]
    assert second["nextCursor"] is None
