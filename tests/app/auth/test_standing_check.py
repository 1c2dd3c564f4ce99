"""Who may no longer listen is found out, whatever the reason."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from flask import Flask

from app.auth.access import Access
from app.auth.standing_check import standing_check
from tenant_schemas.testing.plugin import Database
from tests.factories.people import People, Person

Ending = Callable[[Database, Person], None]


def remove(database: Database, person: Person) -> None:
    database.as_superuser().execute("DELETE FROM shared.memberships WHERE user_id = %s", (person.user_id,))


def demote(database: Database, person: Person) -> None:
    statement = "UPDATE shared.memberships SET role = 'member' WHERE user_id = %s"
    database.as_superuser().execute(statement, (person.user_id,))


def log_out(database: Database, person: Person) -> None:
    statement = "UPDATE shared.sessions SET ended_at = now(), end_reason = 'logout' WHERE user_id = %s"
    database.as_superuser().execute(statement, (person.user_id,))


def disable(database: Database, person: Person) -> None:
    database.as_superuser().execute("UPDATE shared.users SET status = 'disabled' WHERE id = %s", (person.user_id,))


def suspend(database: Database, _: Person) -> None:
    database.as_superuser().execute("UPDATE shared.tenants SET status = 'suspended' WHERE slug = 'eur'")


def rename(database: Database, _: Person) -> None:
    database.as_superuser().execute("UPDATE shared.tenants SET name = 'Another' WHERE slug = 'eur'")


@contextmanager
def listening(app: Flask, person: Person) -> Iterator[Callable[[], bool]]:
    """The check of an admin who was let in to a route for staff."""
    headers = {"Authorization": f"Bearer {person.token}", "X-Tenant": "eur"}
    with app.test_request_context("/api/admin/wallets", headers=headers):
        app.preprocess_request()
        check = standing_check(Access.READER)
        yield check


@pytest.mark.parametrize("end", [remove, demote, log_out, disable, suspend, rename])
def test_a_right_that_has_ended_is_noticed(fresh_app: Flask, fresh_database: Database, end: Ending) -> None:
    person = People(fresh_app).make(eur="admin", km="admin")
    with listening(fresh_app, person) as check:
        assert check()
        end(fresh_database, person)
        assert not check()
