"""A clone is the tenant with other people: its books balance, its chains are valid, and it identifies no person."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask

from tenant_schemas.backup.policy import BackupPolicy
from tenant_schemas.errors import NameRefused, TenantExists, TenantNotFound, VerificationFailed
from tenant_schemas.restore import clone as clone_module
from tenant_schemas.restore.clone import clone
from tenant_schemas.testing.plugin import Database, assert_isolated
from tests.factories.api import Api
from tests.factories.bundles import (
    SECRETS,
    SLUG,
    Furnished,
    audit,
    content,
    destination,
    world,
)
from tests.factories.people import People, Person

pytestmark = pytest.mark.both_servers


def amounts(database: Database, slug: str) -> list[tuple[Any, ...]]:
    query = "SELECT wallet_id, seq, type, amount_minor, balance_after_minor FROM wallet_transactions ORDER BY 1, 2"
    return database.as_tenant(slug).execute(query).fetchall()


def test_a_clone_has_the_same_books_and_they_hold(
    fresh_database: Database, furnished: Furnished, backup_policy: BackupPolicy
) -> None:
    before = content(fresh_database, SLUG)
    cloned = clone(destination(fresh_database), SLUG, "staging")
    assert cloned.tenant == fresh_database.tenant("staging")
    copied = sum(
        len(rows) for table, rows in before.items() if table not in {"alembic_version", *backup_policy.not_cloned}
    )
    assert (cloned.people, cloned.rows) == (2, copied)
    for table in backup_policy.not_cloned:
        assert before[table]
        assert content(fresh_database, "staging")[table] == [], "it shows texts that a clone masks"
    assert amounts(fresh_database, "staging") == amounts(fresh_database, SLUG)
    assert audit(fresh_database, "staging") == []
    assert content(fresh_database, SLUG) == before
    assert_isolated(fresh_database, "staging", SLUG)


def test_a_clone_knows_no_former_member(fresh_database: Database, furnished: Furnished) -> None:
    """A name would identify a person, and a masked one would say nothing."""
    gone = (furnished.member.user_id,)
    fresh_database.as_superuser().execute("DELETE FROM shared.memberships WHERE user_id = %s", gone)
    clone(destination(fresh_database), SLUG, "staging")
    former = "SELECT user_id FROM shared.all_members WHERE removed_at IS NOT NULL"
    assert fresh_database.as_tenant("staging").execute(former).fetchall() == []
    assert fresh_database.as_tenant(SLUG).execute(former).fetchall() == [gone]


def test_a_clone_is_of_one_moment_while_members_go_on_paying(fresh_database: Database, furnished: Furnished) -> None:
    """Tables are copied one after another, and yet every payment is in all of them or in none."""
    stop, url = Event(), fresh_database.url(f"tenant_{SLUG}", fresh_database.password_of(fresh_database.tenant(SLUG)))
    with ThreadPoolExecutor() as aside:
        paying = [aside.submit(keep_paying, url, furnished.wallet_id, stop) for _ in range(2)]
        try:
            clone(destination(fresh_database), SLUG, "staging")
        finally:
            stop.set()
        assert sum(each.result() for each in paying) > 0
    assert audit(fresh_database, "staging") == []


def keep_paying(url: str, wallet_id: UUID, stop: Event) -> int:
    statement = "SELECT wallet_post_v2(%s, 'deposit', 1, gen_random_uuid()::text, NULL, NULL, NULL, NULL, NULL, NULL)"
    count = 0
    with psycopg.connect(url, autocommit=True) as tenant:
        while not stop.is_set():
            tenant.execute(statement, (wallet_id,))
            count += 1
    return count


def test_nothing_in_a_clone_tells_of_anybody(fresh_database: Database, furnished: Furnished) -> None:
    """Searched in all rows of all tables, including the clone's rows in `shared`."""
    source = all_text(fresh_database, SLUG)
    secrets = (*SECRETS, *furnished.emails, str(furnished.member.user_id), str(furnished.admin.user_id))
    assert [secret for secret in secrets if secret not in source] == []
    clone(destination(fresh_database), SLUG, "staging")
    found = all_text(fresh_database, "staging")
    assert [secret for secret in secrets if secret in found] == []
    assert "ana" not in found.lower()


def all_text(database: Database, slug: str) -> str:
    rows = [row for rows in content(database, slug).values() for row in rows]
    return "\n".join([*rows, *(text for row in shared_rows(database, slug) for text in row)])


def shared_rows(database: Database, slug: str) -> list[tuple[Any, ...]]:
    query = """
        SELECT m::text, u::text FROM shared.memberships m JOIN shared.users u ON u.id = m.user_id
        WHERE m.tenant_role = %s"""
    return database.as_superuser().execute(query, (f"tenant_{slug}",)).fetchall()


def test_what_is_masked_is_the_same_again_where_it_must_be(fresh_database: Database, furnished: Furnished) -> None:
    """An order has one pseudonym in all tables, and another one in another clone."""
    found = []
    for slug in ("staging", "second"):
        clone(destination(fresh_database), SLUG, slug)
        query = """SELECT o.order_id FROM order_payments o JOIN wallet_transactions t ON t.id = o.transaction_id
            WHERE o.order_id = t.order_id AND o.order_id !~ '-'"""
        found += fresh_database.as_tenant(slug).execute(query).fetchall()
    assert len(found) == len(set(found)) == 4


def test_nobody_can_log_in_to_a_clone_until_given_a_password(
    fresh_database: Database, fresh_app: Flask, furnished: Furnished
) -> None:
    """The users are active, so that staging's testers need only a password."""
    clone(destination(fresh_database), SLUG, "staging")
    query = (
        "SELECT u.id, u.email, u.status, u.password_hash, m.role FROM shared.users u JOIN shared.memberships m"
        " ON m.user_id = u.id WHERE m.tenant_role = 'tenant_staging' ORDER BY u.email"
    )
    people = fresh_database.as_superuser().execute(query).fetchall()
    assert [row[1:4] for row in people] == [
        (f"member-{number}@staging.clone.invalid", "active", None) for number in (1, 2)
    ]
    assert {role for *_, role in people} == {"member", "admin"}
    (member_id,) = [row[0] for row in people if row[4] == "member"]
    person = Person(member_id, "", People(fresh_app).token(member_id))
    api = Api(fresh_app)
    wallet = api.get("/api/wallet", person, "staging").get_json()
    assert wallet["balance"] == api.get("/api/wallet", furnished.member, SLUG).get_json()["balance"]
    paid = api.post("/api/wallet/payments", person, "staging", json={"amount": "0.01"})
    assert paid.status_code == 201
    assert audit(fresh_database, "staging") == []


def test_the_people_of_a_clone_that_is_made_again_are_the_same(fresh_database: Database, furnished: Furnished) -> None:
    """So their passwords stay valid in staging."""
    clone(destination(fresh_database), SLUG, "staging")
    before = {row[1] for row in shared_rows(fresh_database, "staging")}
    superuser = fresh_database.as_superuser()
    superuser.execute("DELETE FROM shared.memberships WHERE tenant_role = 'tenant_staging'")
    superuser.execute("DELETE FROM shared.tenants WHERE slug = 'staging'")
    superuser.execute("DROP SCHEMA staging_schema CASCADE; DROP OWNED BY tenant_staging; DROP ROLE tenant_staging")
    clone(destination(fresh_database), SLUG, "staging")
    assert {row[1] for row in shared_rows(fresh_database, "staging")} == before


def test_a_clone_that_fails_leaves_nothing(
    fresh_database: Database, furnished: Furnished, monkeypatch: pytest.MonkeyPatch, backup_policy: BackupPolicy
) -> None:
    before = world(fresh_database)
    with pytest.raises(TenantNotFound):
        clone(destination(fresh_database), "nope", "staging")
    with pytest.raises(TenantExists):
        clone(destination(fresh_database), SLUG, "eur")
    with pytest.raises(NameRefused):
        clone(destination(fresh_database), SLUG, "wallet")
    unsound = replace(backup_policy, rechain=lambda _: None)
    with pytest.raises(VerificationFailed, match="hash"):
        clone(replace(destination(fresh_database), backup_policy=unsound), SLUG, "staging")
    done = clone_module.register
    monkeypatch.setattr(clone_module, "register", lambda *args: (done(*args), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        clone(destination(fresh_database), SLUG, "staging")
    assert world(fresh_database) == before


def test_a_table_that_is_not_cloned_is_empty(
    fresh_database: Database, furnished: Furnished, backup_policy: BackupPolicy
) -> None:
    without = replace(backup_policy, not_cloned=frozenset({"reconciliations"}))
    clone(replace(destination(fresh_database), backup_policy=without), SLUG, "staging")
    found = content(fresh_database, "staging")
    forgotten = {"wallet_proofs", "proof_findings", "proof_progress"}  # The chains were computed anew.
    assert {name for name, rows in found.items() if not rows} == {"reconciliations", *forgotten}


def test_a_tenant_whose_ledger_was_forged_is_not_cloned(fresh_database: Database, furnished: Furnished) -> None:
    """The clone's chains are recomputed, and would be valid."""
    fresh_database.as_superuser().execute("""
        ALTER TABLE shop_schema.wallet_transactions DISABLE TRIGGER USER;
        UPDATE shop_schema.wallet_transactions SET reason = 'No reason' WHERE type = 'adjustment';
        ALTER TABLE shop_schema.wallet_transactions ENABLE TRIGGER USER""")
    before = world(fresh_database)
    with pytest.raises(VerificationFailed, match=r"audit of tenant shop found: .*hash"):
        clone(destination(fresh_database), SLUG, "staging")
    assert world(fresh_database) == before
