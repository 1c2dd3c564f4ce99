"""A person with a password, and a browser that has logged in."""

import pytest
from argon2 import PasswordHasher
from flask import Flask

from app.auth import passwords
from app.auth.passwords import hash_password
from tests.factories.browser import PASSWORD, Browser
from tests.factories.people import People, Person


@pytest.fixture
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(passwords, "_hasher", cheap)
    monkeypatch.setattr(passwords, "UNKNOWN_USER_HASH", cheap.hash("unknown"))


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
