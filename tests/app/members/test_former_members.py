"""A former member's name stays in the views of money, for as long as the tenant wants, and in no other tenant's."""

from typing import Final
from uuid import UUID

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.members.former_members import forget_expired
from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.people import People, Person

SLUGS = ("eur", "km")
# In each tenant.
_INVITATION: Final = """
    INSERT INTO shared.invitations (tenant_id, email, role, expires_at, accepted_by, accepted_at, revoked_at)
    SELECT id, %(email)s, 'member', now(), %(by)s, CASE WHEN %(by)s::uuid IS NOT NULL THEN now() END,
        CASE WHEN %(is_revoked)s THEN now() END
    FROM shared.tenants"""


@pytest.fixture
def own(fresh_app: Flask) -> People:
    """People on a database of this test's own: forgetting reaches all tenants."""
    return People(fresh_app)


def known(database: Database, slug: str) -> dict[UUID, tuple[str, bool]]:
    """The names that the tenant's login sees, and whether each is a former member's."""
    rows = database.as_tenant(slug).execute("SELECT user_id, name, removed_at IS NOT NULL FROM shared.all_members")
    return {user_id: (name, is_former) for user_id, name, is_former in rows}


def remove(own: People, admin: Person, person: Person, slug: str = "eur") -> None:
    assert Api(own.app).send("DELETE", f"/api/admin/members/{person.user_id}", admin, slug).status_code == 204


def owners(own: People, admin: Person, slug: str = "eur", q: str = "") -> list[dict[str, object]]:
    query = {"q": q} if q else {}
    items = Api(own.app).get("/api/admin/wallets", admin, slug, query_string=query).json["items"]
    return [item["owner"] for item in items]


def invite(own: People, admin: Person, email: str) -> TestResponse:
    return Api(own.app).post("/api/admin/invitations", admin, "eur", json={"email": email, "role": "member"})


def invited(database: Database) -> list[tuple[str, str]]:
    """The tenants and addresses of all invitations."""
    query = "SELECT t.slug, i.email FROM shared.invitations i JOIN shared.tenants t ON t.id = i.tenant_id"
    return sorted(database.as_superuser().execute(query).fetchall())


def test_the_wallet_of_a_former_member_keeps_the_name_that_its_tenant_knew(
    own: People, fresh_database: Database
) -> None:
    admin, person = own.make(eur="admin", km="admin"), own.make(name="Ana", eur="member", km="member")
    rename = "UPDATE shared.memberships SET name = 'Anči' WHERE user_id = %s AND tenant_role = 'tenant_eur'"
    fresh_database.as_superuser().execute(rename, (person.user_id,))
    pay = "SELECT wallet_post_v2(%s, 'payment', 1, 'key', NULL, NULL, NULL, NULL, NULL, NULL)"
    for slug in SLUGS:
        fresh_database.as_tenant(slug).execute(pay, (own.wallet(person, slug, credit_limit_minor=100),))
    (before,) = owners(own, admin)
    assert before["removedAt"] is None
    remove(own, admin, person)
    moved = "UPDATE shared.users SET email = 'new@example.com', name = 'Ana Marić' WHERE id = %s"
    fresh_database.as_superuser().execute(moved, (person.user_id,))
    (after,) = owners(own, admin, q=person.email)
    assert (after["email"], after["name"], bool(after["removedAt"])) == (person.email, "Anči", True)
    (used,) = Api(own.app).get("/api/admin/credit-report/wallets", admin, "eur").json["items"]
    assert (used["owner"]["name"], bool(used["owner"]["removedAt"])) == ("Anči", True)
    assert known(fresh_database, "eur")[person.user_id] == ("Anči", True)
    assert known(fresh_database, "km")[person.user_id] == ("Ana Marić", False)
    listed = Api(own.app).get("/api/admin/members", admin, "eur").json["items"]
    assert str(person.user_id) not in {item["id"] for item in listed}


def test_who_joins_again_is_a_member_and_no_former_one(own: People, fresh_database: Database) -> None:
    admin, person = own.make(eur="admin"), own.make(name="Ana", eur="member")
    remove(own, admin, person)
    add = {"email": person.email, "role": "member"}
    assert Api(own.app).post("/api/admin/members", admin, "eur", json=add).status_code == 201
    assert [is_former for _, is_former in [known(fresh_database, "eur")[person.user_id]]] == [False]


@pytest.mark.parametrize("statement", ["UPDATE shared.users SET email = id || '@anonymous.invalid' WHERE id = %s"])
def test_an_anonymised_user_is_forgotten_in_every_tenant(own: People, fresh_database: Database, statement: str) -> None:
    """Before and after the removal."""
    admin, person = own.make(eur="admin", km="admin"), own.make(eur="member", km="member")
    remove(own, admin, person)
    assert person.user_id in known(fresh_database, "eur")
    fresh_database.as_superuser().execute(statement, (person.user_id,))
    assert person.user_id not in known(fresh_database, "eur")
    remove(own, admin, person, "km")
    assert person.user_id not in known(fresh_database, "km")


def test_former_members_are_forgotten_when_their_tenants_time_is_over(own: People, fresh_database: Database) -> None:
    """In batches, each tenant by its own setting; a setting that is no number counts as none."""
    admin = own.make(eur="admin", km="admin")
    gone = [own.make(eur="member", km="member") for _ in range(5)]
    for slug in SLUGS:
        for person in gone:
            remove(own, admin, person, slug)
    superuser = fresh_database.as_superuser()
    superuser.execute(
        """UPDATE shared.tenants SET settings = settings || '{"former_member_days": 30}' WHERE slug = 'eur'"""
    )
    superuser.execute(
        """UPDATE shared.tenants SET settings = settings || '{"former_member_days": "x"}' WHERE slug = 'km'"""
    )
    superuser.execute("UPDATE shared.former_members SET removed_at = now() - interval '29 days'")
    with own.app.app_context():
        assert forget_expired(batch=2) == 0
        superuser.execute("UPDATE shared.former_members SET removed_at = now() - interval '31 days'")
        assert forget_expired(batch=2) == 5
        assert len(known(fresh_database, "eur")) == 1
        assert len(known(fresh_database, "km")) == 6
        superuser.execute("UPDATE shared.former_members SET removed_at = now() - interval '3651 days'")
        assert forget_expired(batch=5) == 5


def test_who_has_a_valid_invitation_is_not_forgotten_yet(own: People, fresh_database: Database) -> None:
    admin, person = own.make(eur="admin"), own.make(eur="member")
    remove(own, admin, person)
    assert invite(own, admin, person.email).status_code == 201
    superuser = fresh_database.as_superuser()
    superuser.execute("UPDATE shared.former_members SET removed_at = now() - interval '3651 days'")
    with own.app.app_context():
        assert forget_expired(batch=2) == 0
        superuser.execute("UPDATE shared.invitations SET expires_at = now()")
        assert forget_expired(batch=2) == 1
    assert invited(fresh_database) == []


@pytest.mark.parametrize("is_anonymised", [False, True])
def test_who_is_forgotten_is_in_no_invitation_either(
    own: People, fresh_database: Database, *, is_anonymised: bool
) -> None:
    """Neither in those that they accepted, under whatever address, nor in those to their address that ended."""
    admin, person, other = own.make(eur="admin", km="admin"), own.make(eur="member", km="member"), own.make()
    superuser = fresh_database.as_superuser()
    for email, accepted_by, revoked in (
        ("earlier@example.com", person.user_id, False),
        (person.email, None, True),
        (person.email, other.user_id, False),
    ):
        superuser.execute(_INVITATION, {"email": email, "by": accepted_by, "is_revoked": revoked})
    remove(own, admin, person)
    assert len(invited(fresh_database)) == 6
    if is_anonymised:
        anonymise = "UPDATE shared.users SET email = id || '@anonymous.invalid' WHERE id = %s"
        superuser.execute(anonymise, (person.user_id,))
        assert invited(fresh_database) == [("eur", person.email), ("km", person.email)]
        return
    superuser.execute("DELETE FROM shared.former_members")
    left = [("eur", person.email), ("km", "earlier@example.com"), ("km", person.email), ("km", person.email)]
    assert invited(fresh_database) == sorted(left)


def test_who_joins_again_keeps_the_invitation(own: People, fresh_database: Database) -> None:
    admin, person = own.make(eur="admin"), own.make(eur="member")
    values = {"email": person.email, "by": person.user_id, "is_revoked": False}
    fresh_database.as_superuser().execute(_INVITATION, values)
    remove(own, admin, person)
    add = {"email": person.email, "role": "member"}
    assert Api(own.app).post("/api/admin/members", admin, "eur", json=add).status_code == 201
    assert len(invited(fresh_database)) == 2


def test_no_tenant_reads_or_writes_the_table_itself(database: Database) -> None:
    for slug in SLUGS:
        found = database.as_tenant(slug).execute(
            "SELECT has_table_privilege('shared.former_members', 'SELECT, INSERT, UPDATE, DELETE')"
        )
        assert found.fetchone() == (False,)
