"""A pass proves that the feed tells of each movement once, in order, and of nothing else."""

from collections.abc import Callable
from itertools import product
from uuid import UUID

import pytest
from flask import Flask

from app.prover import service
from app.prover.service import StepState, prove_step
from tenant_schemas.flask import EXTENSION
from tenant_schemas.search_path import BindingEngine
from tenant_schemas.testing.plugin import Database
from tests.factories.feed import Feed
from tests.factories.proofs import Superuser, posted, prove, superuser_of, wallet_with_history

WITHOUT = "movement without its event"
OTHER_ID = "'01010101-0101-4101-8101-010101010101'"
AUDIT = "SELECT finding FROM events_audit_v1()"
# The feed has: 1 and 2 the wallet's opening and its limit, 3 to 6 its movements.
ATTACKS = {
    "a movement's event is deleted": ("DELETE FROM events WHERE position = 3", [WITHOUT, "before position 4"]),
    "the newest event is deleted": ("DELETE FROM events WHERE position = 6", [WITHOUT, "before position 7"]),
    "the head goes back with it": (
        "DELETE FROM events WHERE position = 6; UPDATE events_head SET position = 5",
        [WITHOUT],
    ),
    "an event of no movement is deleted": ("DELETE FROM events WHERE position = 1", ["before position 2"]),
    "all events are deleted as if trimmed": (
        "DELETE FROM events; UPDATE events_head SET trimmed_to = position",
        [WITHOUT],
    ),
    "two positions are exchanged": (
        "UPDATE events SET position = 9 WHERE position = 3; UPDATE events SET position = 3 WHERE position = 4;"
        "UPDATE events SET position = 4 WHERE position = 9",
        ["before that of an earlier movement"],
    ),
    "a position is taken away": (
        "UPDATE events SET position = NULL WHERE position = 3",
        ["before that of an earlier movement", "before position 4"],
    ),
    "an event is moved behind the feed": (
        "UPDATE events SET position = 8 WHERE position = 6",
        ["outside of the feed", "before position 7"],
    ),
    "an event is moved before the feed": (
        "UPDATE events SET position = 0 WHERE position = 1",
        ["outside of the feed", "before position 2"],
    ),
    "an event is foreign": (
        f"UPDATE events SET id = {OTHER_ID} WHERE position = 3",
        ["event without its movement", WITHOUT],
    ),
    "an event has another type": (
        "UPDATE events SET type = 'wallet.refund.posted.v1' WHERE position = 3",
        ["event without its movement"],
    ),
    "an event is of another wallet": (
        f"UPDATE events SET wallet_id = {OTHER_ID} WHERE position = 3",
        ["event without its movement"],
    ),
    "an event is of no wallet": (
        f"UPDATE events SET wallet_id = {OTHER_ID} WHERE position = 1",
        ["event without its wallet"],
    ),
    "the head is gone": ("DELETE FROM events_head", ["the feed has no head"]),
}
INSERT = "UPDATE events_head SET position = 7; INSERT INTO events (position, id, wallet_id, type, subject_id, data)"
FORGERIES = {
    "wallet.payment.posted.v1": "movement",
    "wallet.payment.completed.v1": "command",
    "hold.captured.v1": "hold",
    "order.placed.v1": "order",
    "unknown.event.v1": "unknown",
}


@pytest.fixture
def wallet_id(fresh_app: Flask) -> UUID:
    wallet_id = wallet_with_history(fresh_app, "eur")[1]
    Feed(fresh_app, "eur").stamp()
    return wallet_id


@pytest.fixture
def engine(fresh_app: Flask, fresh_database: Database, wallet_id: UUID) -> BindingEngine:
    return fresh_app.extensions[EXTENSION].engine(fresh_database.tenant("eur"))


@pytest.fixture
def superuser(fresh_database: Database) -> Superuser:
    return superuser_of(fresh_database, "eur")


def texts(engine: BindingEngine, *, is_full: bool = False) -> str:
    return "; ".join(finding.finding for finding in prove(engine, is_full=is_full))


@pytest.fixture
def put_back(superuser: Superuser, wallet_id: UUID) -> Callable[[], None]:
    """Puts the feed back as it was, and forgets what was proven."""
    tables = ("events", "events_head")
    for table in tables:
        superuser.execute(f"CREATE TEMP TABLE kept_{table} AS TABLE {table}".encode())

    def put_back() -> None:
        for table in tables:
            superuser.execute(f"DELETE FROM {table}".encode())
            superuser.execute(f"INSERT INTO {table} TABLE pg_temp.kept_{table}".encode())
        for table in ("wallet_proofs", "proof_progress", "proof_findings"):
            superuser.execute(f"DELETE FROM {table}".encode())

    return put_back


def test_each_attack_on_the_feed_is_found_by_the_next_pass_and_by_the_audit(
    engine: BindingEngine, superuser: Superuser, put_back: Callable[[], None]
) -> None:
    assert texts(engine) == ""
    assert superuser.execute(AUDIT).fetchall() == []
    for attack, (statements, wanted) in ATTACKS.items():
        put_back()
        superuser.execute(statements.encode())
        proven, audited = texts(engine), str(superuser.execute(AUDIT).fetchall())
        for want in wanted:
            assert want in proven, (attack, proven)
            assert want in audited, (attack, audited)


def test_an_event_of_nothing_is_found(
    engine: BindingEngine, superuser: Superuser, wallet_id: UUID, put_back: Callable[[], None]
) -> None:
    for (type_, thing), wallet in product(FORGERIES.items(), (f"'{wallet_id}'", "NULL")):
        put_back()
        forged = f"VALUES (7, {OTHER_ID}, {wallet}, '{type_}', {OTHER_ID}, '{{}}')"
        superuser.execute(f"{INSERT} {forged}".encode())
        assert texts(engine) == f"event {OTHER_ID[1:-1]}: event without its {thing}"


def test_the_next_pass_reads_only_what_is_new_and_a_full_one_all(
    fresh_app: Flask, engine: BindingEngine, superuser: Superuser, wallet_id: UUID
) -> None:
    assert texts(engine) == ""
    superuser.execute("UPDATE events SET wallet_id = gen_random_uuid() WHERE position = 1")
    new = posted(fresh_app, "eur", wallet_id, "new")
    Feed(fresh_app, "eur").stamp()
    superuser.execute("UPDATE events SET type = 'wallet.deposit.posted.v1' WHERE id = %s", (new,))
    assert texts(engine) == f"event {new}: event without its movement"
    assert "event without its wallet" in texts(engine, is_full=True)
    superuser.execute("UPDATE events SET type = 'wallet.payment.posted.v1' WHERE id = %s", (new,))
    assert "its movement" not in texts(engine, is_full=True)


def test_a_new_feed_is_proven_from_its_beginning_and_a_shortened_one_is_found(
    engine: BindingEngine, superuser: Superuser
) -> None:
    assert texts(engine) == ""
    superuser.execute("UPDATE events SET wallet_id = gen_random_uuid() WHERE position = 1")
    superuser.execute("UPDATE events_head SET feed_id = gen_random_uuid()")
    assert "event without its wallet" in texts(engine)
    superuser.execute("DELETE FROM events WHERE position > 3")
    superuser.execute("UPDATE events_head SET position = 3")
    assert "the feed was proven until position 6 and ends at 3" in texts(engine)


def test_movements_of_before_the_feed_and_of_trimmed_events_need_none(
    engine: BindingEngine, superuser: Superuser
) -> None:
    superuser.execute("UPDATE events_head SET trimmed_to = 3")
    superuser.execute("DELETE FROM events WHERE position <= 3")
    superuser.execute("UPDATE wallet_transactions SET created_at = created_at - interval '31 days'")
    superuser.execute("UPDATE events_head SET started_at = started_at - interval '40 days'")
    assert WITHOUT not in texts(engine)
    superuser.execute("DELETE FROM events WHERE position = 5")
    assert WITHOUT in texts(engine, is_full=True)
    superuser.execute("UPDATE events_head SET started_at = clock_timestamp(), trimmed_to = 0")
    assert WITHOUT not in texts(engine, is_full=True)


def test_a_step_reads_a_bounded_part_and_the_pass_ends_where_the_feed_ended(
    fresh_app: Flask, engine: BindingEngine, superuser: Superuser, wallet_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "STEP_ROWS", 2)
    progress = "SELECT phase, place, partial_seq, feed_position FROM proof_progress"
    while superuser.execute(progress).fetchone() != ("feed", "2", 6, 0):
        assert prove_step(engine) is StepState.WORKING
    posted(fresh_app, "eur", wallet_id, "meanwhile")
    Feed(fresh_app, "eur").stamp()
    assert prove_step(engine) is StepState.WORKING
    assert prove_step(engine) is StepState.DONE
    assert superuser.execute(progress).fetchone() == (None, "6", None, 6)


def test_a_relay_that_stamps_and_trims_is_no_finding(fresh_app: Flask, engine: BindingEngine, wallet_id: UUID) -> None:
    posted(fresh_app, "eur", wallet_id, "not stamped")
    assert texts(engine) == ""
    Feed(fresh_app, "eur").stamp()
    assert texts(engine) == ""
