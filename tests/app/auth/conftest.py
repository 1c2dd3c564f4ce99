"""A person with a password, and a browser that has logged in."""

import pytest
from flask import Flask

from app.auth.passwords import hash_password
from tests.factories.browser import PASSWORD, Browser
from tests.factories.people import People, Person


@pytest.fixture
def person(people: People) -> Person:
    """A member of both tenants, with money."""
    made = people.make(password_hash=hash_password(PASSWORD), eur="member", km="member")
    for slug in ("eur", "km"):
        people.wallet(made, slug, balance_minor=1_000)
    return made


@pytest.fixture
def browser(app: Flask, person: Person) -> Browser:
    made = Browser(app)
    assert made.login(person).status_code == 200
    return made
