"""A bundle is restored on another server, with an older and with a newer PostgreSQL, where its people are missing or
have other ids. Each test runs in both directions.
"""

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.errors import UsersDiffer, VerificationFailed
from tenant_schemas.restore.restore import restore
from tenant_schemas.restore.user_mapping import MissingUsers
from tenant_schemas.restore.verify import verify
from tenant_schemas.testing.plugin import Database
from tests.factories.bundles import (
    SLUG,
    Furnished,
    audit,
    content,
    destination,
    make_old,
    post,
    rewritten,
    take,
    without_log,
    world,
)

pytestmark = pytest.mark.both_servers


def people_of(database: Database) -> dict[str, tuple[UUID, str, str | None]]:
    """Id, status and password of all users there, by e-mail."""
    rows = database.as_superuser().execute("SELECT email, id, status, password_hash FROM shared.users")
    return {email: (user_id, status, password) for email, user_id, status, password in rows}


def put_there(database: Database, email: str, user_id: UUID | None = None) -> UUID:
    """Add a person to the other server, active and with a password."""
    user_id = user_id or uuid4()
    statement = "INSERT INTO shared.users (id, email, name, password_hash) VALUES (%s, %s, 'Known here', 'a hash')"
    database.as_superuser().execute(statement, (user_id, email))
    return user_id


def test_people_who_are_missing_are_listed_and_nothing_is_done(
    other_database: Database, furnished: Furnished, bundle: Bundle
) -> None:
    before = world(other_database)
    with pytest.raises(UsersDiffer, match="2 users") as refused:
        restore(destination(other_database), bundle)
    for email in furnished.emails:
        assert f"{email} (" in str(refused.value)
    assert world(other_database) == before


def test_people_who_are_missing_are_made_anew_and_can_not_log_in(
    fresh_database: Database, other_database: Database, furnished: Furnished, bundle: Bundle
) -> None:
    before = content(fresh_database, SLUG)
    restored = restore(destination(other_database), bundle, users=MissingUsers.RECREATE_DISABLED)
    assert restored.ids_replaced == 0
    assert without_log(content(other_database, SLUG)) == without_log(before)
    assert audit(other_database, SLUG) == []
    there = people_of(other_database)
    for person in (furnished.member, furnished.admin):
        assert there[person.email] == (person.user_id, "disabled", None)
    members = other_database.as_tenant(SLUG).execute("SELECT user_id FROM shared.member_directory").fetchall()
    assert {user_id for (user_id,) in members} == {furnished.member.user_id, furnished.admin.user_id}
    post(other_database, furnished, 5)
    assert audit(other_database, SLUG) == []


def test_whose_email_is_somebody_elses_there_is_made_anew_without_it(
    other_database: Database, furnished: Furnished, bundle: Bundle
) -> None:
    other_id = put_there(other_database, furnished.member.email)
    restore(destination(other_database), bundle, users=MissingUsers.RECREATE_DISABLED)
    there = people_of(other_database)
    assert there[furnished.member.email] == (other_id, "active", "a hash")
    assert there[f"{furnished.member.user_id}@recreated.invalid"] == (furnished.member.user_id, "disabled", None)
    assert audit(other_database, SLUG) == []


def test_people_who_have_other_ids_there_are_remapped_wherever_they_are_named(
    fresh_database: Database, other_database: Database, furnished: Furnished, bundle: Bundle
) -> None:
    """The chains contain the wallet's owner, and the admin in movements and in the log, so all chains are
    recomputed.
    """
    member_id = put_there(other_database, furnished.member.email)
    admin_id = put_there(other_database, furnished.admin.email)
    restored = restore(destination(other_database), bundle, users=MissingUsers.REMAP)
    assert restored.ids_replaced == 2
    assert audit(other_database, SLUG) == []
    rows = str(content(other_database, SLUG))
    for old_id, new_id in ((furnished.member.user_id, member_id), (furnished.admin.user_id, admin_id)):
        assert str(new_id) in rows
        assert str(old_id) not in rows
    amounts = "SELECT seq, type, amount_minor, balance_after_minor FROM wallet_transactions ORDER BY seq"
    assert rows_of(other_database, amounts) == rows_of(fresh_database, amounts)
    members = rows_of(other_database, "SELECT user_id, role FROM shared.member_directory")
    assert set(members) == {(member_id, "member"), (admin_id, "admin")}
    assert people_of(other_database)[furnished.member.email] == (member_id, "active", "a hash")
    post(other_database, furnished, 5)
    assert audit(other_database, SLUG) == []


def rows_of(database: Database, query: str) -> list[tuple[Any, ...]]:
    return database.as_tenant(SLUG).execute(query.encode()).fetchall()


def test_a_remap_makes_those_anew_who_are_nobody_there(
    other_database: Database, furnished: Furnished, bundle: Bundle
) -> None:
    admin_id = put_there(other_database, furnished.admin.email)
    assert restore(destination(other_database), bundle, users=MissingUsers.REMAP).ids_replaced == 1
    there = people_of(other_database)
    assert there[furnished.member.email] == (furnished.member.user_id, "disabled", None)
    assert there[furnished.admin.email][0] == admin_id
    assert audit(other_database, SLUG) == []


def test_two_people_never_become_one(other_database: Database, furnished: Furnished, bundle: Bundle) -> None:
    """On the other server the admin now has the member's e-mail."""
    put_there(other_database, furnished.member.email, furnished.admin.user_id)
    before = world(other_database)
    with pytest.raises(UsersDiffer, match="would merge"):
        restore(destination(other_database), bundle, users=MissingUsers.REMAP)
    assert world(other_database) == before


def test_who_is_there_by_id_is_the_same_person_under_whatever_email(
    other_database: Database, furnished: Furnished, bundle: Bundle
) -> None:
    put_there(other_database, "new@example.com", furnished.member.user_id)
    put_there(other_database, furnished.admin.email, furnished.admin.user_id)
    restore(destination(other_database), bundle)
    assert people_of(other_database)["new@example.com"] == (furnished.member.user_id, "active", "a hash")


def test_a_bundle_is_verified_where_none_of_its_people_are(other_database: Database, bundle: Bundle) -> None:
    """Its form is not compared, because the other version describes it in other words."""
    before = world(other_database)
    verified = verify(destination(other_database), bundle)
    assert verified.rows == sum(file.rows for file in bundle.manifest.tables)
    assert verified.same_form is None
    assert world(other_database) == before


def test_a_bundle_goes_there_and_back_and_is_the_same(
    fresh_database: Database, other_database: Database, bundle: Bundle, tmp_path: Path
) -> None:
    """Each table's hash is the same on both versions, except the log's, which has an entry for the restore, and what a
    restore changes so that nobody is told twice.
    """
    restore(destination(other_database), bundle, users=MissingUsers.RECREATE_DISABLED)
    back = take(other_database, SLUG, tmp_path / "back")
    first, second = ({file.name: file.hash for file in each.manifest.tables} for each in (bundle, back))
    different = {name for name in first if first[name] != second[name]}
    assert different == {"audit_log", "audit_chain", "events_head", "webhook_endpoints"}
    restore(destination(fresh_database), back)
    assert audit(fresh_database, SLUG) == []


@pytest.mark.parametrize("revision", ["0001", "0005"])
def test_people_are_remapped_in_a_bundle_of_an_older_revision(
    fresh_database: Database, fresh_app: Flask, other_database: Database, tmp_path: Path, revision: str
) -> None:
    wallet_id = make_old(fresh_database, fresh_app, revision)
    ((email,),) = rows_of(fresh_database, "SELECT email FROM shared.member_directory")
    there = put_there(other_database, email)
    restore(destination(other_database), take(fresh_database, SLUG, tmp_path), users=MissingUsers.REMAP)
    assert rows_of(other_database, "SELECT id, user_id, balance_minor FROM wallets") == [(wallet_id, there, 300)]
    assert audit(other_database, SLUG) == []


def test_whom_only_the_log_or_a_movement_names_is_remapped_too(
    fresh_database: Database, other_database: Database, furnished: Furnished, tmp_path: Path
) -> None:
    """The admin is no longer a member, and a log's subject is a text."""
    superuser = fresh_database.as_superuser()
    superuser.execute("DELETE FROM shared.memberships WHERE user_id = %s", (furnished.admin.user_id,))
    note = "SELECT audit_note_v1(jsonb_build_object('action', 'member.remove', 'subject', %s::text))"
    fresh_database.as_tenant(SLUG).execute(note, (str(furnished.admin.user_id),))
    taken = take(fresh_database, SLUG, tmp_path)
    with pytest.raises(UsersDiffer, match="2 users"):
        restore(destination(other_database), taken)
    there = [put_there(other_database, email) for email in furnished.emails]
    restore(destination(other_database), taken, users=MissingUsers.REMAP)
    rows = str(content(other_database, SLUG))
    assert [str(user_id) in rows for user_id in there] == [True, True]
    assert str(furnished.member.user_id) not in rows
    assert str(furnished.admin.user_id) not in rows
    assert audit(other_database, SLUG) == []


def test_a_forged_ledger_is_found_before_a_remap_makes_its_chains_anew(
    other_database: Database, furnished: Furnished, bundle: Bundle
) -> None:
    forged = rewritten(bundle, "wallet_transactions", lambda line: line.replace(b"Ana was billed twice", b"No reason"))
    for email in furnished.emails:
        put_there(other_database, email)
    before = world(other_database)
    with pytest.raises(VerificationFailed, match="hash does not match the row"):
        restore(destination(other_database), forged, users=MissingUsers.REMAP)
    assert world(other_database) == before
