"""What becomes of webhooks when a tenant is restored, cloned or renamed: nobody is told twice by two tenants."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.lifecycle.rename import rename
from tenant_schemas.restore.clone import clone
from tenant_schemas.restore.restore import restore
from tenant_schemas.testing.plugin import Database
from tests.factories.backups import FOREIGN_KEYS
from tests.factories.bundles import SLUG, Furnished, destination, post, rewritten, take

_WEBHOOK = (
    "SELECT e.status, e.disabled_reason, e.position, e.feed_id = h.feed_id FROM webhook_endpoints e, events_head h"
)
_DUE = "SELECT has_deliveries FROM events_waiting"


def asked(database: Database, question: str, slug: str = SLUG) -> list[tuple[Any, ...]]:
    return database.as_tenant(slug).execute(question.encode()).fetchall()


def stamp(database: Database, slug: str = SLUG) -> None:
    asked(database, "SELECT events_stamp_v1(1000)", slug)


@pytest.fixture
def taken(fresh_database: Database, furnished: Furnished, tmp_path: Path) -> Bundle:
    """A bundle of a tenant whose webhook waits for one event."""
    owner = fresh_database.as_superuser()
    owner.execute(f"UPDATE {SLUG}_schema.webhook_endpoints SET lease_by = '{uuid4()}', lease_until = now()")
    stamp(fresh_database)
    owner.execute(f"UPDATE {SLUG}_schema.webhook_endpoints SET position = h.position FROM {SLUG}_schema.events_head h")
    post(fresh_database, furnished, 7)
    stamp(fresh_database)
    return take(fresh_database, SLUG, tmp_path)


def test_a_tenant_that_gets_its_data_back_goes_on_where_its_webhook_was(
    fresh_database: Database, furnished: Furnished, taken: Bundle
) -> None:
    ((_, _, position, _),) = asked(fresh_database, _WEBHOOK)
    ((webhook_id, lease_by, feed_id),) = asked(fresh_database, "SELECT id, lease_by, feed_id FROM webhook_endpoints")
    post(fresh_database, furnished, 9)
    restore(destination(fresh_database), taken)
    assert asked(fresh_database, _WEBHOOK) == [("enabled", None, position, True)]
    assert asked(fresh_database, _DUE) == [(True,)]
    # A process that delivered when the schemas were swapped must not move the new cursor by the old feed.
    done = f'{{"feed_id": "{feed_id}", "position": 99, "delivered": 1, "failures": 0}}'
    asked_late = f"SELECT webhook_settle_v1('{webhook_id}', '{lease_by}', 0, '{done}')"
    assert asked(fresh_database, asked_late) == [(False,)]
    assert asked(fresh_database, _WEBHOOK) == [("enabled", None, position, True)]


def test_a_restore_in_place_undoes_no_choice_that_was_made_since_the_backup(
    fresh_database: Database, furnished: Furnished, taken: Bundle
) -> None:
    """A deleted webhook gets nothing, a new one is not lost, and a secret that was replaced is not valid again."""
    asked(fresh_database, "SELECT webhook_rotate_v1(id) FROM webhook_endpoints")
    asked(
        fresh_database,
        "SELECT webhook_change_v1(id, NULL, 'https://localhost/moved', NULL, '{}', 'thin', 'wallet')"
        " FROM webhook_endpoints",
    )
    asked(fresh_database, "SELECT webhook_create_v1('https://localhost/new', NULL, '{}', 'full', 'none')")
    post(fresh_database, furnished, 9)
    stamp(fresh_database)
    choices = (
        "SELECT id, url, status, secret_epoch, rotated_at, replaced_at, version FROM webhook_endpoints ORDER BY url"
    )
    before = asked(fresh_database, choices)
    restore(destination(fresh_database), taken)
    assert asked(fresh_database, choices) == before
    places = (
        "SELECT e.url, h.position - e.position, e.feed_id = h.feed_id"
        " FROM webhook_endpoints e, events_head h ORDER BY e.url"
    )
    assert asked(fresh_database, places) == [("https://localhost/moved", 1, True), ("https://localhost/new", 0, True)]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("SELECT webhook_delete_v1(id) FROM webhook_endpoints", ("disabled", "restored")),
        ("SELECT webhook_disable_v1(id) FROM webhook_endpoints", ("disabled", "admin")),
    ],
)
def test_a_webhook_that_was_ended_since_the_backup_is_not_enabled_again(
    fresh_database: Database, taken: Bundle, change: str, found: tuple[str, str]
) -> None:
    asked(fresh_database, change)
    restore(destination(fresh_database), taken)
    assert asked(fresh_database, _WEBHOOK)[0][:2] == found


def foreign(bundle: Bundle, table: str, **values: str) -> Bundle:
    """The bundle with these values in the rows of one table, signed by another installation."""
    (file,) = (each for each in bundle.manifest.tables if each.name == table)

    def change(line: bytes) -> bytes:
        cells = dict(zip(file.columns, line.rstrip(b"\n").split(b"\t"), strict=True))
        cells |= {name: value.encode() for name, value in values.items()}
        return b"\t".join(cells.values()) + b"\n"

    return rewritten(bundle, table, change, FOREIGN_KEYS)


def test_a_foreign_bundle_in_place_changes_no_choice_and_passes_no_event(
    fresh_database: Database, furnished: Furnished, taken: Bundle
) -> None:
    """It could name any URL, and a place that the feed has not yet."""
    asked(fresh_database, "SELECT webhook_create_v1('https://localhost/new', NULL, '{}', 'full', 'none')")
    choices = "SELECT id, url, status, secret_epoch, version FROM webhook_endpoints ORDER BY url"
    before = asked(fresh_database, choices)
    forged = {"url": "https://localhost/forged", "position": "999999", "secret_epoch": "2147483647"}
    bundle = foreign(taken, "webhook_endpoints", **forged)
    for table in ("event_cursors", "webhook_lanes"):
        bundle = foreign(bundle, table, position="999999")
    restore(destination(fresh_database), foreign(bundle, "webhook_replays", until_position="999999"))
    assert asked(fresh_database, choices) == before
    beyond = "SELECT count(*) FROM {} c, events_head h WHERE c.{} > h.position"
    for table in ("webhook_endpoints", "event_cursors", "webhook_lanes"):
        assert asked(fresh_database, beyond.format(table, "position")) == [(0,)], table
    assert asked(fresh_database, beyond.format("webhook_replays", "until_position")) == [(0,)]


def test_a_webhook_that_only_a_foreign_bundle_has_is_disabled(
    fresh_database: Database, furnished: Furnished, taken: Bundle
) -> None:
    asked(fresh_database, "SELECT webhook_delete_v1(id) FROM webhook_endpoints")
    restore(destination(fresh_database), foreign(taken, "webhook_endpoints"))
    assert asked(fresh_database, _WEBHOOK)[0][:2] == ("disabled", "restored")


@pytest.mark.parametrize(("is_own", "found"), [(True, ("enabled", None)), (False, ("disabled", "restored"))])
def test_a_schema_from_before_webhooks_is_replaced(
    fresh_database: Database, taken: Bundle, is_own: bool, found: tuple[str, str | None]
) -> None:
    with fresh_database.as_superuser() as owner:
        owner.execute(f"ALTER TABLE {SLUG}_schema.webhook_endpoints RENAME TO webhook_endpoints_of_another_time")
    restore(destination(fresh_database), taken if is_own else foreign(taken, "webhook_endpoints"))
    assert asked(fresh_database, _WEBHOOK)[0][:2] == found


def test_what_an_admin_had_disabled_stays_so(fresh_database: Database, furnished: Furnished, tmp_path: Path) -> None:
    asked(fresh_database, "SELECT webhook_disable_v1(id) FROM webhook_endpoints")
    restore(destination(fresh_database), take(fresh_database, SLUG, tmp_path))
    assert asked(fresh_database, _WEBHOOK)[0][:2] == ("disabled", "admin")


def test_a_tenant_beside_another_sends_nothing_until_an_admin_wants_it(fresh_database: Database, taken: Bundle) -> None:
    restore(destination(fresh_database), taken, slug="copy")
    ((status, reason, position, is_own_feed),) = asked(fresh_database, _WEBHOOK, "copy")
    assert (status, reason, is_own_feed) == ("disabled", "restored", True)
    assert asked(fresh_database, _DUE, "copy") == [(False,)]
    asked(fresh_database, "SELECT webhook_enable_v1(id, false) FROM webhook_endpoints", "copy")
    assert asked(fresh_database, _WEBHOOK, "copy") == [("enabled", None, position, True)]
    assert asked(fresh_database, _DUE, "copy") == [(True,)]


def test_a_restored_copy_of_a_copy_stays_silent(fresh_database: Database, taken: Bundle, tmp_path: Path) -> None:
    """Its bundle says that a restore disabled the webhook, not this one."""
    restore(destination(fresh_database), taken, slug="copy")
    restore(destination(fresh_database), take(fresh_database, "copy", tmp_path))
    assert asked(fresh_database, _WEBHOOK, "copy")[0][:2] == ("disabled", "restored")


def test_a_clone_has_no_webhooks(fresh_database: Database, taken: Bundle) -> None:
    clone(destination(fresh_database), SLUG, "staging")
    for table in ("endpoints", "lanes", "parked", "replays", "attempts"):
        assert asked(fresh_database, f"SELECT * FROM webhook_{table}", "staging") == []


def test_a_renamed_tenant_goes_on_delivering(fresh_database: Database, taken: Bundle) -> None:
    before = asked(fresh_database, _WEBHOOK)
    with fresh_database.admin_engine().begin() as connection:
        rename(connection, fresh_database.roles, SLUG, "store")
    assert asked(fresh_database, _WEBHOOK, "store") == before
    assert asked(fresh_database, _DUE, "store") == [(True,)]
