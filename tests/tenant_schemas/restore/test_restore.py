"""A bundle becomes a tenant again: unchanged, or beside the living one. Any failure leaves everything unchanged."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.policy import BackupPolicy
from tenant_schemas.doctor import Finding, examine
from tenant_schemas.errors import RestoreRefused, TenantExists, VerificationFailed
from tenant_schemas.lifecycle.archive import archive
from tenant_schemas.lifecycle.drop import drop
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.restore import restore as restore_module
from tenant_schemas.restore.restore import restore
from tenant_schemas.testing.plugin import Database, assert_isolated
from tests.factories.bundles import (
    SLUG,
    Furnished,
    audit,
    balance,
    content,
    destination,
    furnish,
    make_old,
    post,
    rewritten,
    take,
    without_log,
    world,
)
from tests.factories.histories import HEAD

pytestmark = pytest.mark.both_servers


def test_a_tenant_gets_back_every_row_that_it_had(
    fresh_database: Database, fresh_app: Flask, furnished: Furnished, tmp_path: Path
) -> None:
    before, others = content(fresh_database, SLUG), content(fresh_database, "eur")
    assert all(before.values()), "Every table must have rows, or this proves little."
    taken = take(fresh_database, SLUG, tmp_path)
    post(fresh_database, furnished, 777)
    restored = restore(destination(fresh_database), taken)
    after = content(fresh_database, SLUG)
    assert without_log(after) == without_log(before)
    assert set(before["audit_log"]) < set(after["audit_log"])
    assert any("tenant.restore" in entry for entry in after["audit_log"])
    assert audit(fresh_database, SLUG) == []
    assert restored.rows == sum(len(rows) for name, rows in before.items() if name != "alembic_version")
    assert content(fresh_database, "eur") == others


def test_a_restored_tenant_goes_on_working_by_its_own_triggers_and_rights(
    fresh_database: Database, furnished: Furnished, bundle: Bundle
) -> None:
    restore(destination(fresh_database), bundle)
    post(fresh_database, furnished, 5)
    assert audit(fresh_database, SLUG) == []
    for slug, other in ((SLUG, "eur"), ("eur", SLUG)):
        assert_isolated(fresh_database, slug, other)
    schema_name = fresh_database.tenant(SLUG).schema_name
    with pytest.raises(psycopg.errors.RestrictViolation):
        fresh_database.as_superuser().execute(f"DELETE FROM {schema_name}.wallet_transactions".encode())


def test_a_tenant_beside_is_another_with_the_same_rows_and_members(
    fresh_database: Database, furnished: Furnished, bundle: Bundle
) -> None:
    # As in a tenant that is restored as a new one, so that its past is not published again.
    fresh_database.as_tenant(SLUG).execute("SELECT events_stamp_v1(1000)")
    before = content(fresh_database, SLUG)
    beside = restore(destination(fresh_database), bundle, slug="shop2", name="Second").tenant
    assert beside.id != fresh_database.tenant(SLUG).id
    assert fresh_database.tenant("shop2") == beside
    assert (beside.schema_name, beside.name, beside.settings) == ("shop2_schema", "Second", {"currency": "BAM"})
    found = without_log(content(fresh_database, "shop2"))
    assert found | {"event_cursors": None} == without_log(before) | {"event_cursors": None}
    assert content(fresh_database, SLUG) == before
    assert audit(fresh_database, "shop2") == []
    members = fresh_database.as_tenant("shop2").execute("SELECT user_id, role, name FROM shared.member_directory")
    known = {(user_id, role, name) for user_id, role, name in members}
    assert (furnished.member.user_id, "member", "Anči") in known
    assert (furnished.admin.user_id, "admin", "Test Person") in known
    assert_isolated(fresh_database, "shop2", SLUG)


def test_the_doctor_finds_nothing_that_a_restore_did(
    fresh_database: Database, bundle: Bundle, tenancy_migrations: Migrations
) -> None:
    before = examined(fresh_database, tenancy_migrations)
    restore(destination(fresh_database), bundle)
    restore(destination(fresh_database), bundle, slug="shop2")
    assert examined(fresh_database, tenancy_migrations) == before


def examined(database: Database, migrations: Migrations) -> list[Finding]:
    with database.admin_engine().connect() as connection:
        return examine(connection, migrations, shared_logins=True)


def test_what_operators_decided_since_stays(fresh_database: Database, furnished: Furnished, bundle: Bundle) -> None:
    superuser = fresh_database.as_superuser()
    superuser.execute("DELETE FROM shared.memberships WHERE user_id = %s", (furnished.admin.user_id,))
    superuser.execute("""UPDATE shared.tenants SET name = 'New', settings = settings || '{"rate_limit": "1/second"}'
        WHERE slug = 'shop'""")
    before = fresh_database.tenant(SLUG)
    restore(destination(fresh_database), bundle)
    after = fresh_database.tenant(SLUG)
    assert after == replace(before, schema_name=after.schema_name)
    members = superuser.execute("SELECT FROM shared.memberships WHERE user_id = %s", (furnished.admin.user_id,))
    assert members.fetchall() == []


def test_a_tenant_that_is_gone_comes_back_with_its_members(
    fresh_database: Database, fresh_app: Flask, tmp_path: Path
) -> None:
    """It is made here, not copied with a derived template: its role has to be dropped."""
    furnished = furnish(fresh_database, fresh_app)
    bundle = take(fresh_database, SLUG, tmp_path)
    before, was = content(fresh_database, SLUG), fresh_database.tenant(SLUG)
    superuser = fresh_database.as_superuser()
    superuser.execute("DELETE FROM shared.memberships WHERE tenant_id = %s", (was.id,))
    superuser.execute("DELETE FROM shared.tenants WHERE slug = 'shop'")
    superuser.execute("DROP SCHEMA shop_schema CASCADE; DROP OWNED BY tenant_shop; DROP ROLE tenant_shop")
    restored = restore(destination(fresh_database), bundle).tenant
    assert restored == replace(was, login_epoch=restored.login_epoch)
    assert restored.login_epoch > was.login_epoch, "A password that was replaced must not come back."
    assert without_log(content(fresh_database, SLUG)) == without_log(before)
    directory = fresh_database.as_tenant(SLUG).execute("SELECT user_id FROM shared.member_directory").fetchall()
    assert {furnished.member.user_id, furnished.admin.user_id} == {user_id for (user_id,) in directory}


@pytest.mark.parametrize(
    "mishap",
    [
        "DROP SCHEMA shop_schema CASCADE",
        "DROP TABLE shop_schema.wallets CASCADE",
        "DROP SCHEMA shop_schema CASCADE; CREATE SCHEMA shop_schema AUTHORIZATION wallet_owner",
    ],
)
def test_what_somebody_dropped_by_hand_comes_back(
    fresh_database: Database, furnished: Furnished, bundle: Bundle, mishap: str
) -> None:
    before = content(fresh_database, SLUG)
    fresh_database.as_superuser().execute(mishap.encode())
    restore(destination(fresh_database), bundle)
    assert without_log(content(fresh_database, SLUG)) == without_log(before)
    post(fresh_database, furnished, 5)
    assert audit(fresh_database, SLUG) == []


def test_a_bundle_overwrites_no_other_tenant(fresh_database: Database, bundle: Bundle) -> None:
    superuser = fresh_database.as_superuser()
    superuser.execute("DELETE FROM shared.memberships")
    superuser.execute("UPDATE shared.tenants SET id = gen_random_uuid() WHERE slug = 'shop'")
    before = world(fresh_database)
    with pytest.raises(RestoreRefused, match="--as"):
        restore(destination(fresh_database), bundle)
    with pytest.raises(TenantExists):
        restore(destination(fresh_database), bundle, slug="eur")
    assert world(fresh_database) == before


@pytest.mark.parametrize("what", ["tenant", "shared"])
def test_a_bundle_of_newer_code_is_refused(fresh_database: Database, bundle: Bundle, what: str) -> None:
    manifest = bundle.manifest
    newer = (
        replace(manifest, tenant=replace(manifest.tenant, revision="9999"))
        if what == "tenant"
        else replace(manifest, shared_revision="9999")
    )
    before = world(fresh_database)
    with pytest.raises(RestoreRefused, match="newer"):
        restore(destination(fresh_database), replace(bundle, manifest=newer))
    assert world(fresh_database) == before


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ({"prove": lambda _: {}}, VerificationFailed),
        ({"find_faults": lambda _: ["a fault"]}, VerificationFailed),
        ({"prove": failing(KeyboardInterrupt())}, KeyboardInterrupt),
        ({"note": failing(psycopg.errors.DiskFull("full"))}, psycopg.errors.DiskFull),
    ],
)
@pytest.mark.parametrize("slug", [None, "shop2"])
def test_a_restore_that_fails_on_the_way_leaves_nothing(
    fresh_database: Database,
    bundle: Bundle,
    broken: dict[str, Any],
    error: type[BaseException],
    slug: str | None,
) -> None:
    to = destination(fresh_database)
    before, rows = world(fresh_database), content(fresh_database, SLUG)
    with pytest.raises(error):
        restore(replace(to, backup_policy=replace(to.backup_policy, **broken)), bundle, slug=slug)
    assert (world(fresh_database), content(fresh_database, SLUG)) == (before, rows)


@pytest.mark.parametrize(("step", "slug"), [("swap", None), ("register", "shop2"), ("copy_members", "shop2")])
def test_a_restore_that_fails_at_its_very_end_leaves_nothing(
    fresh_database: Database, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, step: str, slug: str | None
) -> None:
    """Ctrl-C after the step is done."""
    done = getattr(restore_module, step)
    monkeypatch.setattr(
        restore_module, step, lambda *args, **more: (done(*args, **more), failing(KeyboardInterrupt())())
    )
    before, rows = world(fresh_database), content(fresh_database, SLUG)
    with pytest.raises(KeyboardInterrupt):
        restore(destination(fresh_database), bundle, slug=slug)
    assert (world(fresh_database), content(fresh_database, SLUG)) == (before, rows)


def test_rows_that_the_tables_refuse_are_no_restore(fresh_database: Database, bundle: Bundle) -> None:
    """Foreign keys stay on while user triggers are off: orders without their payments are refused."""
    partial = rewritten(bundle, "wallets", lambda _: b"")
    before = world(fresh_database)
    with pytest.raises(VerificationFailed, match="foreign key"):
        restore(destination(fresh_database), partial)
    assert world(fresh_database) == before


def test_a_restore_finds_what_a_killed_one_left(fresh_database: Database, bundle: Bundle) -> None:
    """The retired schema and its login are noted before they are filled, so the next restore removes them."""
    before = world(fresh_database)
    with pytest.MonkeyPatch.context() as killed:
        killed.setattr("tenant_schemas.restore.staging_schema.drop_retired_schema_now", failing(KeyboardInterrupt()))
        killed.setattr(restore_module, "load", failing(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            restore(destination(fresh_database), bundle, slug="shop2")
    left = world(fresh_database)
    assert set(left["schemas"]) - set(before["schemas"]) == {("shop2_schema",)}
    assert (("tenant_shop2", False)) in left["roles"]
    restore(destination(fresh_database), bundle, slug="shop2")
    assert audit(fresh_database, "shop2") == []
    assert world(fresh_database)["retired"] == []


def test_two_restores_of_one_tenant_are_not_at_work_at_once(
    fresh_database: Database, bundle: Bundle, backup_policy: BackupPolicy
) -> None:
    """The second one is refused with a reason, and changes nothing of the first."""

    def second(_: Any) -> list[str]:
        with pytest.raises(RestoreRefused, match="at this moment"):
            restore(destination(fresh_database), bundle, slug="shop2")
        return []

    with pytest.MonkeyPatch.context() as soon:
        soon.setattr("tenant_schemas.migrations.history.LOCK_TIMEOUT_MS", 200)
        first = replace(destination(fresh_database), backup_policy=replace(backup_policy, find_faults=second))
        assert restore(first, bundle, slug="shop2").tenant == fresh_database.tenant("shop2")


def test_a_tenant_is_restored_again_and_again_into_schemas_of_their_own(
    fresh_database: Database, bundle: Bundle
) -> None:
    schemas = [restore(destination(fresh_database), bundle).tenant.schema_name for _ in range(2)]
    assert len({*schemas, "shop_schema"}) == 3
    assert all(name.startswith("shop_schema_r2") for name in schemas)
    retired = fresh_database.as_superuser().execute("SELECT schema_name, reason FROM shared.spare_schemas").fetchall()
    assert sorted(retired) == [("shop_schema", "replaced"), (min(schemas), "replaced")]


@pytest.mark.parametrize("revision", ["0001", "0005"])
@pytest.mark.parametrize("slug", [None, "shop2"])
def test_a_bundle_of_an_older_revision_is_brought_to_the_head(
    fresh_database: Database,
    fresh_app: Flask,
    tmp_path: Path,
    revision: str,
    slug: str | None,
) -> None:
    wallet_id = make_old(fresh_database, fresh_app, revision)
    taken = take(fresh_database, SLUG, tmp_path)
    assert taken.manifest.tenant.revision == revision
    restored = restore(destination(fresh_database), taken, slug=slug).tenant
    assert restored.revision == HEAD
    assert balance(fresh_database, restored.slug, wallet_id) == 300
    assert audit(fresh_database, restored.slug) == []


def test_beside_a_living_tenant_only_its_members_of_today_get_in(
    fresh_database: Database, furnished: Furnished, bundle: Bundle
) -> None:
    """An old bundle restores neither former members nor former roles."""
    superuser = fresh_database.as_superuser()
    superuser.execute("DELETE FROM shared.memberships WHERE user_id = %s", (furnished.admin.user_id,))
    superuser.execute("UPDATE shared.memberships SET role = 'auditor' WHERE user_id = %s", (furnished.member.user_id,))
    restore(destination(fresh_database), bundle, slug="shop2")
    members = superuser.execute("SELECT user_id, role FROM shared.memberships WHERE tenant_role = 'tenant_shop2'")
    assert members.fetchall() == [(furnished.member.user_id, "auditor")]


def test_former_members_come_back_with_a_tenant_that_is_gone_and_stay_with_one_that_is_not(
    fresh_database: Database, fresh_app: Flask, tmp_path: Path
) -> None:
    """Beside the living tenant, the copy gets those of today."""
    furnished = furnish(fresh_database, fresh_app)
    superuser = fresh_database.as_superuser()
    superuser.execute("DELETE FROM shared.memberships WHERE user_id = %s", (furnished.member.user_id,))
    bundle = take(fresh_database, SLUG, tmp_path)
    expected = [(furnished.member.user_id, furnished.member.email, "Anči")]
    assert former(fresh_database) == expected
    restore(destination(fresh_database), bundle)
    assert former(fresh_database) == expected
    restore(destination(fresh_database), bundle, slug="shop2")
    assert former(fresh_database, "shop2") == expected
    with fresh_database.admin_engine().begin() as connection:
        archive(connection, SLUG)
    drop(fresh_database.admin_engine(), SLUG, lambda _: None)
    assert superuser.execute("SELECT tenant_role FROM shared.former_members").fetchall() == [("tenant_shop2",)]
    restore(destination(fresh_database), bundle)
    assert former(fresh_database) == expected


def former(database: Database, slug: str = SLUG) -> list[tuple[Any, ...]]:
    query = "SELECT user_id, email, name FROM shared.all_members WHERE removed_at IS NOT NULL"
    return database.as_tenant(slug).execute(query).fetchall()
