"""Who a user is in a tenant, as each request asks."""

import pytest
from flask import Flask

from app.users.models import Role
from app.users.standing import standing
from tenant_schemas.testing.plugin import Database
from tests.factories.people import People

OVER_TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])


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
