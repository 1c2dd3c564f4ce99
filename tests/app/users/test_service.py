"""Users and memberships as the rest of the application asks for them."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from flask import Flask
from sqlalchemy.exc import IntegrityError, ProgrammingError

from app.db import db
from app.members.service import add_membership
from app.users import service
from app.users.errors import MemberNotFound, UserExists
from app.users.models import Role, User
from app.users.standing import standing
from tenant_schemas.errors import NotBound
from tenant_schemas.flask import shared_side, tenant_context
from tenant_schemas.testing.plugin import Database
from tests.factories.people import People

OVER_TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])


@pytest.fixture
def shared(app: Flask) -> Iterator[None]:
    """On the shared side; what a test leaves uncommitted is rolled back."""
    with app.app_context(), shared_side():
        yield
        db.session.rollback()


@pytest.mark.usefixtures("shared")
def test_an_address_is_kept_and_found_in_lower_case_without_edges() -> None:
    name = uuid4().hex
    user = service.add_user(f"  {name.upper()}@Example.COM ", "Ana", None)
    assert user.email == f"{name}@example.com"
    assert service.find_user(f"{name}@EXAMPLE.com\n") is user
    assert service.find_user(f"{name}@example.org") is None


@pytest.mark.usefixtures("shared")
def test_an_address_belongs_to_one_user() -> None:
    email = f"{uuid4().hex}@example.com"
    service.add_user(email, "Ana", None)
    with pytest.raises(UserExists):
        service.add_user(email.upper(), "Another Ana", None)


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("change", [str.upper, str.lower])
def test_the_database_holds_addresses_to_lower_case_and_to_one_user(change: Callable[[str], str]) -> None:
    known = service.add_user(f"{uuid4().hex}@example.com", "Ana", None)
    db.session.add(User(email=change(known.email), name="Ana"))
    with pytest.raises(IntegrityError):
        db.session.flush()


@pytest.mark.usefixtures("shared")
def test_a_user_nobody_is_is_not_found() -> None:
    with pytest.raises(MemberNotFound):
        service.get_user(uuid4())
    assert standing(uuid4(), None, "eur", None) is None


@OVER_TENANTS
def test_standing_says_who_where_and_in_which_role(app: Flask, people: People, database: Database, slug: str) -> None:
    """By slug and by id alike; an id goes before a slug, since it comes from a signed claim."""
    person, tenant = people.make(eur="member", km="admin"), database.tenant(slug)
    role = {"eur": Role.MEMBER, "km": Role.ADMIN}[slug]
    other = {"eur": "km", "km": "eur"}[slug]
    with app.app_context():
        for by_slug, by_id in ((slug, None), (None, tenant.id), (other, tenant.id)):
            found = standing(person.user_id, None, by_slug, by_id)
            assert found is not None
            assert (found.id, found.tenant, found.role, found.is_operator) == (person.user_id, tenant, role, False)


@OVER_TENANTS
def test_standing_of_a_stranger_has_the_tenant_but_no_role(app: Flask, people: People, slug: str) -> None:
    stranger = people.make()
    with app.app_context():
        found = standing(stranger.user_id, None, slug, None)
        assert found is not None
        assert (found.tenant is not None, found.role) == (True, None)
        nowhere = standing(stranger.user_id, None, "nope", None)
        assert nowhere is not None
        assert (nowhere.tenant, nowhere.role) == (None, None)


def test_a_disabled_user_has_no_standing_anywhere(app: Flask, people: People, database: Database) -> None:
    person = people.make(eur="admin", km="member")
    database.as_superuser().execute("UPDATE shared.users SET status = 'disabled' WHERE id = %s", (person.user_id,))
    with app.app_context():
        for slug in ("eur", "km", None):
            assert standing(person.user_id, None, slug, None) is None


@OVER_TENANTS
def test_a_membership_is_one_and_its_role_can_change(app: Flask, people: People, slug: str) -> None:
    person = people.make()
    with app.app_context():
        with tenant_context(slug) as tenant:
            pass
        with shared_side():
            user = service.get_user(person.user_id)
            for role in (Role.MEMBER, Role.ADMIN, Role.ADMIN):
                add_membership(user, tenant, role)
                db.session.commit()
                assert service.memberships_of(person.user_id) == [{"tenant_id": slug, "role": role}]


@OVER_TENANTS
def test_users_are_out_of_reach_from_a_tenants_side(app: Flask, people: People, slug: str) -> None:
    """PostgreSQL refuses it: a tenant's login may not read the table with the password hashes."""
    person = people.make(eur="admin", km="admin")
    with app.app_context(), tenant_context(slug):
        with pytest.raises(ProgrammingError, match="permission denied"):
            service.find_user(person.email)
        db.session.rollback()


def test_with_no_side_bound_nothing_is_asked(app: Flask) -> None:
    with app.app_context(), pytest.raises(NotBound):
        service.find_user("anybody@example.com")
