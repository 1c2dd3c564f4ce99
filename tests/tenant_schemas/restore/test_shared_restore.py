"""The schema shared comes back whole, at the head, and only into an installation without rows of its own."""

from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from psycopg import sql

from tenant_schemas.errors import RestoreRefused, SecretRefused, VerificationFailed
from tenant_schemas.migrations.history import History, Migrations
from tenant_schemas.restore.shared_restore import is_loaded, restore_shared
from tenant_schemas.secret_checks import replace_secret, wrong_secrets
from tenant_schemas.testing.plugin import Database
from tests.factories.bundles import destination
from tests.factories.installations import SHARED_POLICY, lose, take_shared
from tests.factories.people import People

SECRETS = {"TENANT_SECRET": "the master secret", "SECRET_KEY": "the key of second factors"}


def rows_of(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of all tables that a bundle has."""
    superuser = database.as_superuser()
    names = superuser.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'shared'").fetchall()
    query = sql.SQL("SELECT t::text FROM {} t ORDER BY 1")
    return {
        name: superuser.execute(query.format(sql.Identifier("shared", name))).fetchall()
        for (name,) in names
        if name not in SHARED_POLICY.left_out
    }


def test_every_row_comes_back_as_it_was(fresh_database: Database, fresh_app: Flask, tmp_path: Path) -> None:
    people = People(fresh_app)
    people.make(km="member", eur="admin")
    left = people.make(km="member", name="Who has left")
    superuser = fresh_database.as_superuser()
    superuser.execute("DELETE FROM shared.memberships WHERE user_id = %s", (left.user_id,))
    bundle, before = take_shared(fresh_database, tmp_path), rows_of(fresh_database)
    lose(fresh_database)
    restored = restore_shared(destination(fresh_database), SHARED_POLICY, bundle, {})
    assert rows_of(fresh_database) == before
    assert before["former_members"]
    assert restored.left_out == ()
    assert superuser.execute("SELECT count(*) FROM shared.sessions").fetchone() == (0,)
    assert is_loaded(destination(fresh_database), bundle)


def test_a_bundle_of_an_older_revision_is_migrated_with_its_rows(
    fresh_database: Database, fresh_app: Flask, tmp_path: Path, tenancy_migrations: Migrations
) -> None:
    person = People(fresh_app).make(km="member")
    superuser = fresh_database.as_superuser()
    superuser.execute("DROP TABLE shared.secret_checks; UPDATE shared.alembic_version SET version_num = '0015'")
    bundle = take_shared(fresh_database, tmp_path)
    lose(fresh_database)
    assert restore_shared(destination(fresh_database), SHARED_POLICY, bundle, {}).revision == "0015"
    head = superuser.execute("SELECT version_num FROM shared.alembic_version").fetchone()
    assert head == (tenancy_migrations.head(History.SHARED),)
    assert superuser.execute("SELECT FROM shared.users WHERE id = %s", (person.user_id,)).fetchall() == [()]
    assert superuser.execute("SELECT count(*) FROM shared.secret_checks").fetchone() == (0,)


def test_an_installation_with_rows_of_its_own_is_refused(
    fresh_database: Database, fresh_app: Flask, tmp_path: Path
) -> None:
    bundle, target = take_shared(fresh_database, tmp_path), destination(fresh_database)
    superuser = fresh_database.as_superuser()
    superuser.execute("UPDATE shared.tenants SET id = gen_random_uuid() WHERE slug = 'km'")
    with pytest.raises(RestoreRefused, match=r"tenants of its own.*: km"):
        is_loaded(target, bundle)
    superuser.execute("DELETE FROM shared.tenants")
    People(fresh_app).make()
    assert not is_loaded(target, bundle)
    with pytest.raises(RestoreRefused, match=r"shared\.users"):
        restore_shared(target, SHARED_POLICY, bundle, {})
    superuser.execute("DELETE FROM shared.sessions; DELETE FROM shared.users")
    superuser.execute("INSERT INTO shared.schema_stamps VALUES ('km_schema', '', '')")
    restore_shared(target, SHARED_POLICY, bundle, {})
    assert {tenant.slug for tenant in fresh_database.tenants()} == {"eur", "km"}


def test_other_secrets_are_refused_and_then_accepted_on_demand(fresh_database: Database, tmp_path: Path) -> None:
    superuser, target = fresh_database.as_superuser(), destination(fresh_database)
    for name, secret in SECRETS.items():
        replace_secret(superuser, name, secret)
    bundle = take_shared(fresh_database, tmp_path)
    lose(fresh_database)
    other = SECRETS | {"SECRET_KEY": "another"}
    with pytest.raises(SecretRefused, match=r"^SECRET_KEY of the settings"):
        restore_shared(target, SHARED_POLICY, bundle, other)
    assert superuser.execute("SELECT to_regnamespace('shared')").fetchone() == (None,)
    restore_shared(target, SHARED_POLICY, bundle, other, accepts_new_secrets=True)
    assert wrong_secrets(superuser, other) == []
    assert wrong_secrets(superuser, SECRETS) == ["SECRET_KEY"]


def test_what_was_added_by_hand_is_left_out_and_named(fresh_database: Database, tmp_path: Path) -> None:
    superuser = fresh_database.as_superuser()
    superuser.execute("CREATE TABLE shared.note (text text); INSERT INTO shared.note VALUES ('a'), ('b')")
    superuser.execute("ALTER TABLE shared.tenants ADD COLUMN remark text DEFAULT E'tab\\there'")
    bundle, tenants = take_shared(fresh_database, tmp_path), fresh_database.tenants()
    lose(fresh_database)
    restored = restore_shared(destination(fresh_database), SHARED_POLICY, bundle, {})
    assert set(restored.left_out) == {"table note with 2 rows", "column tenants.remark"}
    assert fresh_database.tenants() == tenants


def test_a_row_that_the_database_refuses_leaves_nothing(fresh_database: Database, tmp_path: Path) -> None:
    superuser = fresh_database.as_superuser()
    superuser.execute("ALTER TABLE shared.tenants DROP CONSTRAINT tenants_login_epoch_positive")
    superuser.execute("UPDATE shared.tenants SET login_epoch = -1 WHERE slug = 'km'")
    bundle = take_shared(fresh_database, tmp_path)
    lose(fresh_database)
    with pytest.raises(VerificationFailed, match="tenants_login_epoch_positive"):
        restore_shared(destination(fresh_database), SHARED_POLICY, bundle, {})
    assert superuser.execute("SELECT to_regnamespace('shared')").fetchone() == (None,)
