"""A member with a wallet of 10.00 and the feed that tells of it."""

from uuid import UUID

import pytest
from flask import Flask

from tests.factories.feed import Feed
from tests.factories.people import People, Person


@pytest.fixture
def feed(app: Flask) -> Feed:
    return Feed(app, "eur")


@pytest.fixture
def person(people: People) -> Person:
    return people.make(eur="member")


@pytest.fixture
def wallet_id(people: People, person: Person) -> UUID:
    return people.wallet(person, "eur", balance_minor=1000)
