"""Users and memberships as the rest of the application asks for them."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from flask import Flask
from sqlalchemy.exc import IntegrityError, ProgrammingError

from app.db import db
from app.users import service
from app.users.errors import MemberNotFound, UserExists
from app.users.models import User
from app.users.standing import standing
from tenant_schemas.errors import NotBound
from tenant_schemas.flask import shared_side, tenant_context
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
