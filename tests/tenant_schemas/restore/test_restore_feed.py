"""What becomes of the feed when a tenant is restored, cloned or renamed."""

from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.errors import VerificationFailed
from tenant_schemas.lifecycle.rename import rename
from tenant_schemas.restore.clone import clone
from tenant_schemas.restore.restore import restore
from tenant_schemas.testing.plugin import Database
from tests.factories.application import running
from tests.factories.bundles import SLUG, Furnished, destination, post, take
from tests.factories.feed import Feed


class Head(NamedTuple):
    feed_id: UUID
    position: int
    trimmed_to: int


def head(database: Database, slug: str = SLUG) -> Head:
    rows = database.as_tenant(slug).execute("SELECT feed_id, position, trimmed_to FROM events_head")
    return Head(*rows.fetchall()[0])


def stamp(database: Database, slug: str = SLUG) -> None:
    database.as_tenant(slug).execute("SELECT events_stamp_v1(1000)")


def audit_events(database: Database, slug: str) -> list[tuple[Any, ...]]:
    return database.as_tenant(slug).execute("SELECT * FROM events_audit_v1()").fetchall()


@pytest.mark.both_servers
def test_a_restored_tenant_has_another_feed_that_goes_on_in_the_same_order(
    fresh_database: Database, furnished: Furnished, tmp_path: Path
) -> None:
    """Half of the bundle's events have no number yet. The sequence is in no bundle, and its numbers still grow."""
    fresh_database.as_tenant(SLUG).execute("SELECT events_stamp_v1(2)")
    taken = take(fresh_database, SLUG, tmp_path)
    before = head(fresh_database)
    post(fresh_database, furnished, 7)
    stamp(fresh_database)
    restore(destination(fresh_database), taken)
    after = head(fresh_database)
    assert (after.position, after.trimmed_to) == (before.position, 0) == (3, 0)
    assert after.feed_id != before.feed_id
    post(fresh_database, furnished, 9)
    with running(fresh_database) as app:
        feed = Feed(app, SLUG)
        seqs = [event.body["data"]["seq"] for event in feed.of(furnished.wallet_id) if ".posted." in event.type]
        assert seqs == list(range(1, len(seqs) + 1))
        assert feed.of(furnished.wallet_id)[-1].body["data"]["amount"] == "0.09"
    assert audit_events(fresh_database, SLUG) == []


def test_a_tenant_that_is_restored_beside_another_has_a_feed_of_its_own(
    fresh_database: Database, furnished: Furnished, bundle: Bundle
) -> None:
    beside = restore(destination(fresh_database), bundle, slug="copy").tenant
    assert head(fresh_database, "copy").feed_id != head(fresh_database).feed_id
    assert audit_events(fresh_database, beside.slug) == []


@pytest.mark.parametrize(("slug", "is_published"), [("copy", False), (None, True)])
def test_only_under_its_own_id_a_restored_tenant_publishes_what_no_broker_had(
    fresh_database: Database, furnished: Furnished, bundle: Bundle, slug: str | None, is_published: bool
) -> None:
    restored = restore(destination(fresh_database), bundle, slug=slug).tenant
    stamp(fresh_database, restored.slug)
    waiting = fresh_database.as_tenant(restored.slug).execute("SELECT has_unpublished FROM events_waiting").fetchall()
    assert waiting == [(is_published,)]


def test_a_clone_tells_nobody_of_what_its_source_did(fresh_database: Database, furnished: Furnished) -> None:
    source = head(fresh_database)
    clone(destination(fresh_database), SLUG, "staging")
    cloned = head(fresh_database, "staging")
    assert cloned.feed_id != source.feed_id
    assert cloned.trimmed_to == cloned.position == source.position
    stamp(fresh_database, "staging")
    assert head(fresh_database, "staging") == cloned
    post(fresh_database, furnished, 5)
    fresh_database.as_tenant("staging").execute(
        "SELECT wallet_post_v2(%s, 'deposit', 1, 'k', NULL, NULL, NULL, NULL, NULL, NULL)", (furnished.wallet_id,)
    )
    stamp(fresh_database, "staging")
    with running(fresh_database) as app:
        (event,) = Feed(app, "staging").read(after=cloned.position)
        assert event.position == source.position + 1
        assert event.body["source"] == f"/tenants/{fresh_database.tenant('staging').id}"
    assert audit_events(fresh_database, "staging") == []


def test_a_renamed_tenant_keeps_its_feed(fresh_database: Database, furnished: Furnished) -> None:
    with running(fresh_database) as app:
        before = Feed(app, SLUG).of(furnished.wallet_id)
    with fresh_database.admin_engine().begin() as connection:
        rename(connection, fresh_database.roles, SLUG, "renamed")
    with running(fresh_database) as app:
        assert Feed(app, "renamed").of(furnished.wallet_id) == before


@pytest.mark.parametrize(
    ("breaking", "finding"),
    [
        ("DELETE FROM events WHERE position = (SELECT max(position) FROM events WHERE type ~ 'posted')",
         "movement without its event"),
        ("INSERT INTO events (id, type) VALUES (gen_random_uuid(), 'wallet.payment.posted.v1')",
         "event without its movement"),
        ("UPDATE events SET type = 'wallet.refund.posted.v1' WHERE type = 'wallet.deposit.posted.v1'",
         "event without its movement"),
        ("UPDATE events_head SET position = position + 1", "1 positions have no event before position"),
        ("UPDATE events_head SET position = position - 1", "event outside of the feed"),
        ("UPDATE events SET position = -position;"
         " UPDATE events SET position = position + 1 + (SELECT h.position FROM events_head h)",
         "event before that of an earlier movement"),
    ],
)  # fmt: skip
def test_the_audit_finds_what_the_feed_lacks_or_has_too_much(
    fresh_database: Database, furnished: Furnished, breaking: str, finding: str
) -> None:
    stamp(fresh_database)
    superuser = fresh_database.as_superuser()
    superuser.execute(f"SET search_path TO {SLUG}_schema".encode())
    assert audit_events(fresh_database, SLUG) == []
    superuser.execute(breaking.encode())
    assert finding in "; ".join(found for _, _, found in audit_events(fresh_database, SLUG))


def test_a_bundle_whose_feed_is_not_sound_is_not_restored(
    fresh_database: Database, furnished: Furnished, tmp_path: Path
) -> None:
    superuser: psycopg.Connection[Any] = fresh_database.as_superuser()
    superuser.execute(f"DELETE FROM {SLUG}_schema.events WHERE type = 'wallet.refund.posted.v1'".encode())
    taken = take(fresh_database, SLUG, tmp_path)
    with pytest.raises(VerificationFailed, match="movement without its event"):
        restore(destination(fresh_database), taken)
