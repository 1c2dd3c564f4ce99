"""Every event reaches a webhook at least once, those of a wallet in their order, whatever fails meanwhile."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from standardwebhooks import Webhook

from app.webhooks import delivery as delivery_module
from app.webhooks import round as round_module
from app.webhooks.delivery import EVENTS_OF_A_LANE, deliver_due, own_delivery
from app.webhooks.schedule import DELAYS
from app.webhooks.signature import secret_of
from tenant_schemas.context import current_tenant
from tests.factories.feed import Feed, in_tenant
from tests.factories.hooked import Hooked
from tests.factories.mail import Mailbox
from tests.factories.people import People
from tests.factories.telemetry import TRACE_ID, TRACEPARENT, sample, traced_spans, traces
from tests.factories.webhooks import HOST, Consumer, Received, Reply

SOON = timedelta(seconds=10)
LONG = timedelta(days=2)


def ids(consumer: Consumer) -> list[str]:
    return [got.id for got in consumer.take()]


def texts(*found: UUID) -> list[str]:
    return [str(each) for each in found]


def failing_for(
    *event_ids: UUID, status: int = 500, headers: dict[str, str] | None = None
) -> Callable[[Received], Reply]:
    """Answers with this status to these events, and 200 to others."""
    refused = set(texts(*event_ids))
    return lambda got: Reply(status, headers or {}) if got.id in refused else Reply()


def is_due_now(hooked: Hooked) -> bool:
    """As the relay asks."""
    ((is_due,),) = hooked.rows("SELECT has_deliveries FROM events_waiting")
    return bool(is_due)


def test_an_event_arrives_signed_as_the_feed_has_it(hooked: Hooked, consumer: Consumer) -> None:
    webhook_id, wallet_id = hooked.webhook(consumer.url()), hooked.wallet()
    hooked.deliver()
    consumer.take()
    (paid,) = hooked.pay(wallet_id)
    assert is_due_now(hooked)
    hooked.deliver()
    (got,) = consumer.take()
    with in_tenant(hooked.app):
        secret = secret_of(own_delivery().master_secret, current_tenant().id, webhook_id, 1)
    event = Webhook(secret).verify(got.body, got.headers)
    assert got.headers["content-type"].startswith("application/cloudevents+json")
    assert (got.id, event["id"], event["type"]) == (str(paid), str(paid), "wallet.payment.posted.v1")
    assert event == hooked.feed.of(wallet_id)[-1].body
    assert not is_due_now(hooked)
    found = hooked.get(webhook_id)
    assert (found.position, found.delivered) == (hooked.feed.head().position, 3)
    assert hooked.rows("SELECT count(*) FROM webhook_attempts") == [(0,)], "a delivered event leaves no row"


def test_a_webhook_gets_its_types_and_payload_only(hooked: Hooked, consumer: Consumer) -> None:
    hooked.webhook(consumer.url(), types=["wallet.deposit.posted.v1"], payload="thin")
    wallet_id = hooked.wallet()
    hooked.pay(wallet_id, 3)
    hooked.deliver()
    (got,) = consumer.take()
    assert (got.event["type"], "amount" in got.event["data"]) == ("wallet.deposit.posted.v1", False)
    assert {"walletId", "seq", "hash", "previousHash"} <= set(got.event["data"])


def test_a_failed_event_holds_up_its_wallet_and_no_other(hooked: Hooked, consumer: Consumer) -> None:
    webhook_id, slow, quick = hooked.webhook(consumer.url()), hooked.wallet(), hooked.wallet()
    hooked.deliver()
    consumer.take()
    of_slow, of_quick = hooked.pay(slow, EVENTS_OF_A_LANE + 5), hooked.pay(quick, 3)
    consumer.answer = failing_for(of_slow[0])
    hooked.deliver()
    assert sorted(ids(consumer)) == sorted(texts(of_slow[0], *of_quick))
    later = hooked.pay(slow)
    hooked.deliver()
    assert ids(consumer) == [], "it waits in the lane until its time has come"
    consumer.answer = lambda _: Reply()
    hooked.pass_time(SOON)
    hooked.deliver()
    assert ids(consumer) == texts(*of_slow, *later)
    assert hooked.rows("SELECT count(*) FROM webhook_lanes") == [(0,)]
    logged = hooked.rows("SELECT outcome, attempt, status FROM webhook_attempts ORDER BY at")
    assert logged == [("failed", 1, 500), ("delivered", 2, 200)]
    assert hooked.get(webhook_id).position == hooked.feed.head().position


def test_without_an_order_a_failed_event_holds_up_nothing(hooked: Hooked, consumer: Consumer) -> None:
    hooked.webhook(consumer.url(), delivery_order="none")
    wallet_id = hooked.wallet()
    hooked.deliver()
    consumer.take()
    paid = hooked.pay(wallet_id, 3)
    consumer.answer = failing_for(paid[0])
    hooked.deliver()
    assert sorted(ids(consumer)) == sorted(texts(*paid))
    consumer.answer = lambda _: Reply()
    hooked.pass_time(SOON)
    hooked.deliver()
    assert ids(consumer) == texts(paid[0])
    assert hooked.rows("SELECT count(*) FROM webhook_lanes") == [(0,)]


def test_after_ten_attempts_an_event_is_parked_and_its_wallet_goes_on(hooked: Hooked, consumer: Consumer) -> None:
    webhook_id, wallet_id = hooked.webhook(consumer.url()), hooked.wallet()
    hooked.deliver()
    paid = hooked.pay(wallet_id, 2)
    consumer.answer = failing_for(paid[0])
    consumer.take()
    for delay in (*DELAYS, timedelta()):
        hooked.deliver()
        other = hooked.pay(hooked.wallet())  # Or the webhook would have failed for days without a success.
        hooked.deliver()
        assert str(other[0]) in ids(consumer)
        hooked.pass_time(delay * 1.2)
    hooked.deliver()
    parked = hooked.rows("SELECT event_id FROM webhook_parked WHERE endpoint_id = %s", (webhook_id,))
    assert parked == [(paid[0],)]
    tried = hooked.rows("SELECT outcome, count(*) FROM webhook_attempts GROUP BY 1 ORDER BY 1")
    assert tried == [("failed", 9), ("parked", 1)]
    assert hooked.rows("SELECT count(*) FROM webhook_lanes") == [(0,)]


def test_a_process_that_dies_before_it_notes_the_answer_has_it_sent_again_with_the_same_id(
    hooked: Hooked, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooked.webhook(consumer.url())
    wallet_id = hooked.wallet()
    hooked.deliver()
    consumer.take()
    paid = hooked.pay(wallet_id)

    class Killed(BaseException): ...

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, in_tenant(hooked.app):
        patch.setattr(delivery_module, "settle", killed)
        with pytest.raises(Killed):
            deliver_due()
    assert hooked.deliver() == 0, "the lease of the dead process still holds"
    hooked.pass_time(LONG)
    hooked.deliver()
    assert ids(consumer) == texts(*paid, *paid)


def test_an_endpoint_that_lost_its_lease_notes_nothing(hooked: Hooked, consumer: Consumer) -> None:
    webhook_id, wallet_id = hooked.webhook(consumer.url()), hooked.wallet()
    hooked.deliver()
    consumer.take()
    hooked.pay(wallet_id)
    before = hooked.get(webhook_id).position

    def taken(_: Received) -> Reply:
        hooked.run("UPDATE webhook_endpoints SET lease_by = gen_random_uuid()")
        return Reply()

    consumer.answer = taken
    with in_tenant(hooked.app):
        assert deliver_due()
    assert hooked.get(webhook_id).position == before


def test_no_db_transaction_is_open_while_an_endpoint_is_asked(hooked: Hooked, consumer: Consumer) -> None:
    hooked.webhook(consumer.url())
    hooked.wallet()
    seen: list[int] = []

    def look(_: Received) -> Reply:
        query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'tenant_eur' AND starts_with(state, 'idle in')"
        seen.extend(row[0] for row in hooked.rows(query))
        return Reply()

    consumer.answer = look
    hooked.deliver()
    assert seen
    assert set(seen) == {0}


def test_an_endpoint_that_fails_altogether_rests_and_then_gets_one_message_to_try(
    hooked: Hooked, consumer: Consumer
) -> None:
    webhook_id = hooked.webhook(consumer.url())
    wallets = [hooked.wallet() for _ in range(12)]
    hooked.deliver()
    consumer.take()
    consumer.answer = lambda _: Reply(502)
    paid = [each for wallet_id in wallets for each in hooked.pay(wallet_id)]
    hooked.deliver()
    assert 5 <= len(consumer.take()) <= 12
    assert not is_due_now(hooked)
    hooked.pass_time(timedelta(minutes=6))
    hooked.deliver()
    assert len(consumer.take()) == 1
    consumer.answer = lambda _: Reply()
    hooked.pass_time(LONG)
    hooked.deliver()
    assert sorted(ids(consumer)) == sorted(texts(*paid))
    found = hooked.get(webhook_id)
    assert (found.failures, found.failing_since, found.status) == (0, None, "enabled")


@pytest.mark.parametrize("status", [429, 503])
def test_an_endpoint_that_asks_to_wait_gets_nothing_meanwhile(hooked: Hooked, consumer: Consumer, status: int) -> None:
    hooked.webhook(consumer.url())
    wallet_id = hooked.wallet()
    hooked.deliver()
    consumer.take()
    paid = hooked.pay(wallet_id)
    consumer.answer = failing_for(*paid, status=status, headers={"Retry-After": "3600"})
    hooked.deliver()
    other = hooked.pay(hooked.wallet())
    hooked.pass_time(timedelta(minutes=59))
    hooked.deliver()
    assert ids(consumer) == texts(*paid)
    consumer.answer = lambda _: Reply()
    hooked.pass_time(timedelta(minutes=2))
    hooked.deliver()
    assert {*texts(*paid, *other)} < {*ids(consumer)}


def test_an_endpoint_that_is_gone_is_disabled_and_its_admins_are_told(
    hooked: Hooked, consumer: Consumer, people: People, mailbox: Mailbox
) -> None:
    admin = people.make(eur="admin")
    webhook_id, wallet_id = hooked.webhook(consumer.url("/secret-path")), hooked.wallet()
    hooked.deliver()
    consumer.take()
    paid = hooked.pay(wallet_id, 2)
    consumer.answer = lambda _: Reply(410)
    hooked.deliver()
    found = hooked.get(webhook_id)
    assert (found.status, found.disabled_reason, found.notice_owed) == ("disabled", "gone", False)
    (mail,) = mailbox.collect(admin.email)
    assert "410" in mail.get_content()
    assert "hooks.example" in mail.get_content()
    assert "secret-path" not in mail.get_content()
    assert not is_due_now(hooked)
    assert ids(consumer) == texts(paid[0])
    enable(hooked, webhook_id)
    consumer.answer = lambda _: Reply()
    hooked.pass_time(SOON)
    hooked.deliver()
    assert ids(consumer) == texts(*paid), "disabling loses nothing"
    logged = "SELECT actor_kind, after FROM audit_log WHERE action = 'webhook.disable' AND subject = %s"
    assert hooked.rows(logged, (str(webhook_id),)) == [("system", {"reason": "gone"})]


@pytest.mark.parametrize("moves", [False, True])
def test_what_waited_is_tried_at_once_after_enabling_or_at_another_url(
    hooked: Hooked, consumer: Consumer, moves: bool
) -> None:
    webhook_id, wallet_id = hooked.webhook(consumer.url()), hooked.wallet()
    hooked.deliver()
    paid = hooked.pay(wallet_id)
    consumer.answer = failing_for(*paid)
    hooked.deliver()
    consumer.take()
    consumer.answer = lambda _: Reply()
    hooked.deliver()
    assert ids(consumer) == []
    if moves:
        hooked.run(
            "SELECT webhook_change_v1(%s, NULL, %s, '', '{}', 'full', 'wallet')", (webhook_id, consumer.url("/2"))
        )
    else:
        enable(hooked, webhook_id)
    hooked.deliver()
    assert ids(consumer) == texts(*paid)


def enable(hooked: Hooked, webhook_id: UUID) -> None:
    hooked.run("SELECT webhook_enable_v1(%s, false)", (webhook_id,))


def test_five_days_of_failure_disable_an_endpoint(
    hooked: Hooked, consumer: Consumer, people: People, mailbox: Mailbox
) -> None:
    admin = people.make(eur="admin")
    webhook_id = hooked.webhook(consumer.url())
    hooked.wallet()
    consumer.answer = lambda _: Reply(500)
    for days in (3.0, 1.5, 2.0):
        hooked.deliver()
        hooked.pay(hooked.wallet())
        assert hooked.get(webhook_id).status == "enabled"
        hooked.pass_time(timedelta(days=days))
    hooked.deliver()
    assert hooked.get(webhook_id).disabled_reason == "failing"
    assert [str(mail["Subject"]) for mail in mailbox.collect(admin.email)] == ["A webhook of eur is disabled"]


def test_a_notice_that_a_dead_process_owed_is_sent_by_the_next(
    hooked: Hooked, consumer: Consumer, people: People, mailbox: Mailbox
) -> None:
    admin = people.make(eur="admin")
    webhook_id = hooked.webhook(consumer.url())
    hooked.run(
        "UPDATE webhook_endpoints SET status = 'disabled', disabled_reason = 'gone', disabled_at = now(),"
        " notice_owed = true WHERE id = %s",
        (webhook_id,),
    )
    assert hooked.deliver() == 1
    assert len(mailbox.collect(admin.email)) == 1
    assert hooked.deliver() == 0


def test_an_admin_who_disables_during_a_delivery_wins(hooked: Hooked, consumer: Consumer) -> None:
    webhook_id = hooked.webhook(consumer.url())
    hooked.wallet()

    def disable(_: Received) -> Reply:
        hooked.run("SELECT webhook_disable_v1(%s)", (webhook_id,))
        return Reply(410)

    consumer.answer = disable
    hooked.deliver()
    assert hooked.get(webhook_id).disabled_reason == "admin"


def test_two_endpoints_of_a_tenant_do_not_wait_for_each_other(hooked: Hooked, consumer: Consumer) -> None:
    hooked.webhook(consumer.url("/broken"))
    hooked.webhook(consumer.url("/whole"))
    hooked.wallet()
    consumer.answer = lambda got: Reply(500 if got.path == "/broken" else 200)
    hooked.deliver()
    assert sorted(got.path for got in consumer.take()) == ["/broken", "/whole", "/whole"]


def test_a_refused_address_is_a_failure_that_sends_nothing(hooked: Hooked, consumer: Consumer) -> None:
    hooked.webhook("https://10.0.0.1.example:8443/")
    hooked.wallet()
    with in_tenant(hooked.app):
        own = own_delivery()
        resolved = own.sender.resolve
        object.__setattr__(own.sender, "resolve", lambda *_: ["10.0.0.1"])
        try:
            assert deliver_due()
        finally:
            object.__setattr__(own.sender, "resolve", resolved)
    logged = hooked.rows("SELECT outcome, status, failure FROM webhook_attempts")
    assert logged == [("failed", None, "no_allowed_address")]
    assert consumer.take() == []


def test_a_slow_resolver_takes_no_time_from_the_messages(
    hooked: Hooked, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(round_module, "SECONDS", 0.2)
    hooked.webhook(consumer.url())
    hooked.wallet()
    own = hooked.app.extensions[delivery_module.EXTENSION]

    def slowly(*_: object) -> list[str]:
        time.sleep(0.3)
        return [HOST]

    hooked.app.extensions[delivery_module.EXTENSION] = replace(own, sender=replace(own.sender, resolve=slowly))
    with in_tenant(hooked.app):
        assert deliver_due()
    assert consumer.take()


def test_the_events_of_another_tenant_are_sent_to_nobody_here(
    hooked: Hooked, consumer: Consumer, people: People
) -> None:
    hooked.webhook(consumer.url())
    people.wallet(people.make(km="member"), "km", balance_minor=500)
    Feed(hooked.app, "km").stamp()
    hooked.deliver()
    with in_tenant(hooked.app, "km"):
        assert not deliver_due()
    assert consumer.take() == []


def test_a_replay_sends_a_range_again_with_the_same_ids_and_unparks(hooked: Hooked, consumer: Consumer) -> None:
    webhook_id, wallet_id = hooked.webhook(consumer.url()), hooked.wallet()
    hooked.deliver()
    consumer.take()
    paid = hooked.pay(wallet_id, 30)
    hooked.deliver()
    assert len(consumer.take()) == 30
    last = hooked.feed.head().position
    hooked.run(
        "INSERT INTO webhook_parked (endpoint_id, event_id, type, position) VALUES (%s, %s, 'x', 1)",
        (webhook_id, paid[25]),
    )
    hooked.run("SELECT webhook_replay_v1(%s, %s, %s, '{}')", (webhook_id, last - 30, last - 2))
    consumer.answer = failing_for(paid[21])
    hooked.deliver()
    assert ids(consumer) == texts(*paid[:22])
    consumer.answer = lambda _: Reply()
    new = hooked.pay(wallet_id)
    hooked.deliver()
    assert ids(consumer) == texts(*new), "a replay that waits holds up nothing new"
    hooked.pass_time(SOON)
    hooked.deliver()
    assert ids(consumer) == texts(*paid[21:28])
    (row,) = hooked.rows("SELECT delivered, position, until_position, finished_at IS NULL FROM webhook_replays")
    assert row == (28, last - 2, last - 2, False)
    assert hooked.rows("SELECT count(*) FROM webhook_parked") == [(0,)]


def test_during_a_rotation_messages_have_both_signatures(hooked: Hooked, consumer: Consumer) -> None:
    webhook_id, wallet_id = hooked.webhook(consumer.url()), hooked.wallet()
    hooked.deliver()
    consumer.take()
    for _ in range(2):  # The answer to the first may have been lost.
        hooked.run("SELECT webhook_rotate_v1(%s)", (webhook_id,))
    hooked.pay(wallet_id)
    hooked.deliver()
    (got,) = consumer.take()
    with in_tenant(hooked.app):
        own = own_delivery().master_secret
        secrets = [secret_of(own, current_tenant().id, webhook_id, epoch) for epoch in (1, 2, 3)]
    for secret in secrets:
        Webhook(secret).verify(got.body, got.headers)
    hooked.pass_time(timedelta(hours=25))
    hooked.pay(wallet_id)
    hooked.deliver()
    (later,) = consumer.take()
    assert len(later.headers["webhook-signature"].split()) == 1


def test_an_endpoint_of_another_feed_gets_nothing_until_it_is_enabled(hooked: Hooked, consumer: Consumer) -> None:
    webhook_id, wallet_id = hooked.webhook(consumer.url()), hooked.wallet()
    hooked.deliver()
    consumer.take()
    hooked.run("UPDATE webhook_endpoints SET feed_id = gen_random_uuid()")
    paid = hooked.pay(wallet_id)
    hooked.deliver()
    assert ids(consumer) == []
    enable(hooked, webhook_id)
    hooked.deliver()
    assert ids(consumer) == texts(*paid)


def test_the_log_is_trimmed_by_age_and_number(hooked: Hooked, consumer: Consumer) -> None:
    webhook_id = hooked.webhook(consumer.url())
    hooked.run(
        "INSERT INTO webhook_attempts (endpoint_id, event_id, type, source, attempt, at, outcome, duration_ms, answer)"
        " SELECT %s, gen_random_uuid(), 'x', 'feed', 1, clock_timestamp() - make_interval(days => n), 'failed', 1, ''"
        " FROM generate_series(1, 40) AS n",
        (webhook_id,),
    )
    kept = "SELECT count(*) FROM webhook_attempts"
    hooked.run("SELECT webhook_trim_v1(%s, 30, 10000, 4)", (webhook_id,))
    assert hooked.rows(kept) == [(36,)], "no more than it may delete at once"
    hooked.run("SELECT webhook_trim_v1(%s, 30, 5, 1000)", (webhook_id,))
    assert hooked.rows(kept) == [(5,)]
    hooked.run("UPDATE webhook_attempts SET at = at - interval '30 days'")
    hooked.run("UPDATE webhook_endpoints SET trimmed_at = now() - interval '1 hour'")
    hooked.wallet()
    hooked.deliver()
    assert hooked.rows(kept) == [(0,)], "a claim trims"


def test_the_feed_is_kept_for_what_waits(hooked: Hooked, consumer: Consumer) -> None:
    assert needed_from(hooked) is None
    webhook_id, wallet_id = hooked.webhook(consumer.url()), hooked.wallet()
    hooked.deliver()
    head = hooked.feed.head().position
    assert needed_from(hooked) == head + 1
    paid = hooked.pay(wallet_id)
    consumer.answer = failing_for(*paid)
    hooked.deliver()
    hooked.pay(hooked.wallet())
    hooked.deliver()
    assert needed_from(hooked) == head + 1, "the lane's event is still to be sent"
    hooked.run("DELETE FROM webhook_lanes")
    assert (needed_from(hooked) or 0) > head + 1
    hooked.run(
        "INSERT INTO webhook_parked (endpoint_id, event_id, type, position) VALUES (%s, %s, 'x', %s)",
        (webhook_id, paid[0], head + 1),
    )
    assert needed_from(hooked) == head + 1, "an admin may resend it"
    hooked.run("UPDATE webhook_parked SET parked_at = parked_at - interval '30 days'")
    assert (needed_from(hooked) or 0) > head + 1, "but not for ever"
    hooked.run("SELECT webhook_disable_v1(%s)", (webhook_id,))
    assert needed_from(hooked) is None


def needed_from(hooked: Hooked) -> int | None:
    """As the relay asks before it trims the feed."""
    ((passed,),) = hooked.rows("SELECT webhooks_passed_v1()")
    return None if passed is None else int(passed) + 1


def test_attempts_are_counted_and_belong_to_the_trace_of_their_event(hooked: Hooked, consumer: Consumer) -> None:
    hooked.webhook(consumer.url())
    first, second = hooked.pay(hooked.wallet(), 2)
    hooked.run("UPDATE events SET traceparent = %(told)s WHERE id = %(id)s", {"told": TRACEPARENT, "id": first})
    consumer.answer = failing_for(second)
    before = attempts()
    with traced_spans() as exporter:
        hooked.deliver()
    delivered, failed = attempts()
    assert failed - before[1] == 1
    assert delivered - before[0] == len(consumer.take()) - 1
    assert traces(exporter, "webhook") == [TRACE_ID]


def attempts() -> tuple[float, float]:
    delivered, failed = (
        sample("wallet_sink_attempts_total", sink="webhook", result=result) for result in ("delivered", "failed")
    )
    return delivered, failed
