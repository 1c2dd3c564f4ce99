"""What the verbs of a wallet give back to code that calls them one after another."""

import pytest
from flask import Flask

from app.auth.actors import Actor, ActorKind
from app.db import db
from app.wallets import service
from app.wallets.currencies import main_currency
from tenant_schemas.flask import tenant_context
from tests.factories.people import People

OVER_TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])


@OVER_TENANTS
def test_a_wallet_that_was_read_before_it_is_changed_shows_the_change(app: Flask, people: People, slug: str) -> None:
    """The SQL function writes behind the session's back, so what the session holds has to be read anew."""
    person = people.make(eur="member", km="member")
    wallet_id = people.wallet(person, slug)
    with app.app_context(), tenant_context(slug):
        held = service.get_wallet(wallet_id)
        changed = service.configure_wallet(
            wallet_id,
            version=held.version,
            actor=Actor(ActorKind.USER, person.user_id),
            credit_limit_minor=500,
            status="frozen",
        )
        assert changed is held
        assert (held.credit_limit_minor, held.status, held.version, held.available_minor) == (500, "frozen", 2, 500)
        db.session.rollback()
        assert service.get_wallet(wallet_id).version == 1, "and nothing was committed by it"
        db.session.rollback()


@OVER_TENANTS
def test_a_wallet_is_opened_once_and_found_again(app: Flask, people: People, slug: str) -> None:
    person = people.make(eur="member", km="member")
    with app.app_context(), tenant_context(slug):
        first, opened = service.open_wallet(person.user_id, main_currency())
        again, opened_again = service.open_wallet(person.user_id, main_currency())
        assert (opened, opened_again, again is first) == (True, False, True)
        assert service.own_wallet(person.user_id, main_currency()) is first
        db.session.rollback()
