"""The outbox: a token is good once, also for two at once, the newest one counts, and old rows are deleted."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from flask import Flask

from app.db import db
from app.mail.models import MailKind
from app.mail.outbox import AccountTokenNotFound, ask_for_reset, drop_tokens, prune_mails, put_token_mail, use_token
from tenant_schemas.flask import shared_side
from tenant_schemas.testing.plugin import Database
from tests.factories.mail import Mailbox
from tests.factories.people import People

NOBODY: Final = UUID("11111111-2222-4333-8444-555555555555")


def test_of_two_uses_at_once_one_wins(app: Flask, people: People, mailbox: Mailbox) -> None:
    person, together = people.make(), Barrier(2)
    with app.app_context():
        ask_for_reset(person.email, seconds=60, has_provider=False)
    token = mailbox.token(person.email)

    def use(_: int) -> bool:
        with app.app_context(), shared_side():
            together.wait()
            try:
                use_token(MailKind.PASSWORD_RESET, token)
            except AccountTokenNotFound:
                return False
            db.session.commit()
            return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(use, range(2))) == [False, True]


def test_two_who_ask_at_once_leave_one_good_token(app: Flask, people: People, database: Database) -> None:
    person, together = people.make(), Barrier(4)

    def ask(number: int) -> None:
        with app.app_context(), shared_side():
            together.wait()
            if number % 2:
                ask_for_reset(person.email, seconds=60, has_provider=False)
            else:
                put_token_mail(MailKind.PASSWORD_RESET, person.email, seconds=60, user_id=person.user_id)
                db.session.commit()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))
    with database.as_superuser() as superuser:
        query = "SELECT count(*) FROM shared.account_mails WHERE user_id = %s"
        assert superuser.execute(query, (person.user_id,)).fetchall() == [(1,)]


def test_what_is_rolled_back_sends_no_mail(app: Flask, people: People, mailbox: Mailbox) -> None:
    person = people.make()
    with app.app_context(), shared_side():
        put_token_mail(MailKind.PASSWORD_RESET, person.email, seconds=60, user_id=person.user_id)
        db.session.rollback()
    assert mailbox.collect(person.email) == []


def test_mails_that_expired_long_ago_are_deleted(fresh_app: Flask, fresh_database: Database) -> None:
    people = People(fresh_app)
    recipients = [people.make() for _ in range(3)]
    with fresh_app.app_context():
        for person in recipients:
            ask_for_reset(person.email, seconds=60, has_provider=False)
    with fresh_database.as_superuser() as superuser:
        ages = zip(("1 day", "9 days", "10 days"), recipients, strict=True)
        for age, person in ages:
            change = "UPDATE shared.account_mails SET expires_at = now() - %s::interval WHERE user_id = %s"
            superuser.execute(change, (age, person.user_id))
    with fresh_app.app_context():
        assert (prune_mails(8), prune_mails(8)) == (2, 0)


def test_the_tokens_of_a_user_are_found_by_an_index(app: Flask) -> None:
    """Each change of a password drops tokens: without the index, it would read everybody's mails."""
    plans = []

    def explain(connection: sa.Connection, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if statement.startswith("DELETE"):
            plans.append(connection.connection.cursor().execute(f"EXPLAIN {statement}", parameters).fetchall())

    with app.app_context(), shared_side():
        db.session.execute(sa.text("SET LOCAL enable_seqscan = off"))
        connection = db.session.connection()
        sa.event.listen(connection, "before_cursor_execute", explain)
        drop_tokens(NOBODY, MailKind.PASSWORD_RESET, MailKind.EMAIL_CHANGE)
    assert "account_mails_user_id_kind_key" in str(plans)
