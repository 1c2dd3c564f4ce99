"""A membership is one row of a user in a tenant."""

import pytest
from flask import Flask

from app.db import db
from app.members.service import add_membership
from app.users import service
from app.users.models import Role
from tenant_schemas.flask import shared_side, tenant_context
from tests.factories.people import People

OVER_TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])


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
