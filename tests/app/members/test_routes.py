"""GET /api/me: the current user and memberships, without a tenant."""

import pytest

from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of
from tests.factories.api import Api
from tests.factories.people import People


def test_i_am_shown_as_i_am(api: Api, people: People) -> None:
    person = people.make(name="Ana Kovač", km="admin", eur="member")
    response = api.get("/api/me", person)
    assert response.status_code == 200
    assert response.json == {
        "id": str(person.user_id),
        "email": person.email,
        "name": "Ana Kovač",
        "isOperator": False,
        "memberships": [{"tenantId": "eur", "role": "member"}, {"tenantId": "km", "role": "admin"}],
    }


@pytest.mark.parametrize("slug", ["eur", "km"])
def test_i_am_shown_the_same_with_a_token_for_one_tenant(
    api: Api, people: People, database: Database, slug: str
) -> None:
    person = people.make(eur="member", km="admin")
    token = people.token(person.user_id, database.tenant(slug).id)
    sent = {"Authorization": f"Bearer {token}"}
    assert api.get("/api/me", headers=sent).json == api.get("/api/me", person).json


def test_a_user_who_belongs_nowhere_is_shown_too(api: Api, people: People) -> None:
    assert api.get("/api/me", people.make()).json["memberships"] == []


def test_a_user_is_shown_only_what_is_theirs(api: Api, people: People) -> None:
    one, other = people.make(eur="member"), people.make(km="admin")
    shown = api.get("/api/me", one)
    assert str(other.user_id) not in shown.text
    assert "password" not in shown.text
    assert "argon2" not in shown.text


def test_a_user_who_was_disabled_is_not_shown(api: Api, people: People, database: Database) -> None:
    person = people.make(eur="member")
    assert api.get("/api/me", person).status_code == 200
    database.as_superuser().execute("UPDATE shared.users SET status = 'disabled' WHERE id = %s", (person.user_id,))
    problem_of(api.get("/api/me", person), 401, "bad_token")
