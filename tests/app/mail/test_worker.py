"""Account mails reach a real SMTP server at least once, whatever happens to the server or to the worker."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from threading import Thread
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
import structlog
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from flask import Flask

from app.db import db
from app.mail import worker
from app.mail.models import MailKind
from app.mail.outbox import holder_of, put_notice, put_token_mail
from app.mail.transport import SmtpTransport
from app.mail.worker import Sender, start_mail_worker
from tenant_schemas.flask import shared_side
from tenant_schemas.testing.plugin import Database
from tests.factories.application import running
from tests.factories.mail import token_in
from tests.factories.people import People, Person

HOST = "127.0.0.1"


class Inbox:
    """What an SMTP server has accepted. `refuses` are its answers to RCPT, by recipient."""

    def __init__(self) -> None:
        self.envelopes: list[tuple[list[str], EmailMessage]] = []
        self.refuses: dict[str, str] = {}
        self.dies_after_data = False

    async def handle_RCPT(  # noqa: N802  aiosmtpd names it
        self, _: SMTP, __: Session, envelope: Envelope, address: str, ___: list[str]
    ) -> str:
        if address in self.refuses:
            return self.refuses[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, _: Session, envelope: Envelope) -> str:  # noqa: N802
        content = cast(bytes, envelope.content)
        message = message_from_bytes(content, policy=policy.default)
        self.envelopes.append((list(envelope.rcpt_tos), cast(EmailMessage, message)))
        if self.dies_after_data:  # Before it says that it has the mail.
            server.transport.close()
        return "250 OK"


@contextmanager
def mail_server(inbox: Inbox, **options: Any) -> Iterator[str]:
    """An SMTP server on a free port; its URL."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    controller = Controller(inbox, hostname=HOST, port=port, **options)
    controller.start()
    try:
        yield f"smtp://{HOST}:{port}"
    finally:
        controller.stop()


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def person(people: People) -> Person:
    return people.make(eur="member")


def put(app: Flask, person: Person, kind: MailKind = MailKind.PASSWORD_RESET, recipient: str | None = None) -> None:
    with app.app_context(), shared_side():
        if kind is MailKind.PASSWORD_CHANGED:
            put_notice(kind, recipient or person.email, person.user_id)
        else:
            put_token_mail(kind, recipient or person.email, seconds=600, user_id=person.user_id)
        db.session.commit()


def sweep(app: Flask, url: str, seconds: float = 5.0) -> None:
    """One round, to this server."""
    with app.app_context():
        Sender(SmtpTransport(url, seconds), "wallet@mail.example", "https://wallet.example/account").send_due()


def state(database: Database, person: Person) -> tuple[int, bool, bool]:
    """Attempts, whether another is planned, and whether it was sent."""
    query = """
        SELECT attempts, next_attempt_at IS NOT NULL, sent_at IS NOT NULL FROM shared.account_mails
        WHERE user_id = %s"""
    with database.as_superuser() as superuser:
        ((attempts, is_planned, is_sent),) = superuser.execute(query, (person.user_id,)).fetchall()
    return attempts, is_planned, is_sent


def make_due(database: Database, person: Person) -> None:
    with database.as_superuser() as superuser:
        superuser.execute(
            "UPDATE shared.account_mails SET next_attempt_at = now() WHERE user_id = %s AND sent_at IS NULL",
            (person.user_id,),
        )


@pytest.fixture(autouse=True)
def nothing_else_is_due(database: Database) -> None:
    with database.as_superuser() as superuser:
        superuser.execute("UPDATE shared.account_mails SET next_attempt_at = NULL")


def test_a_mail_reaches_its_recipient_once_with_a_token_that_works(
    app: Flask, database: Database, person: Person, inbox: Inbox
) -> None:
    put(app, person)
    with mail_server(inbox) as url:
        sweep(app, url)
        sweep(app, url)
    ((recipients, mail),) = inbox.envelopes
    assert recipients == [person.email]
    assert (mail["From"], mail["To"]) == ("wallet@mail.example", person.email)
    assert "https://wallet.example/account#action=reset-password&token=" in mail.get_content()
    with app.app_context(), shared_side():
        assert holder_of(MailKind.PASSWORD_RESET, token_in(mail)).user_id == person.user_id
    assert state(database, person) == (1, False, True)


def test_a_server_that_is_away_gets_the_mail_later(
    app: Flask, database: Database, person: Person, inbox: Inbox
) -> None:
    put(app, person)
    with mail_server(inbox) as url:
        pass
    sweep(app, url)
    assert state(database, person) == (1, True, False)
    with mail_server(inbox) as url:
        sweep(app, url)
        assert inbox.envelopes == [], "it is not tried again at once"
        make_due(database, person)
        sweep(app, url)
    assert len(inbox.envelopes) == 1
    assert state(database, person) == (2, False, True)


def test_a_refused_recipient_holds_up_no_other(
    app: Flask, database: Database, people: People, person: Person, inbox: Inbox
) -> None:
    other = people.make(eur="member")
    inbox.refuses[person.email] = "550 no such mailbox"
    put(app, person)
    put(app, other)
    with mail_server(inbox) as url:
        sweep(app, url)
    assert [recipients for recipients, _ in inbox.envelopes] == [[other.email]]
    assert state(database, person) == (1, True, False)


def test_a_server_that_dies_in_between_may_get_the_mail_twice(
    app: Flask, database: Database, person: Person, inbox: Inbox
) -> None:
    """At least once: the worker does not know that the server has it."""
    put(app, person)
    inbox.dies_after_data = True
    with mail_server(inbox) as url:
        sweep(app, url)
    assert state(database, person) == (1, True, False)
    inbox.dies_after_data = False
    make_due(database, person)
    with mail_server(inbox) as url:
        sweep(app, url)
    first, second = (token_in(mail) for _, mail in inbox.envelopes)
    assert first == second
    first_mail, second_mail = (mail for _, mail in inbox.envelopes)
    for header in ("Message-ID", "Date"):  # A mail client shows one of them.
        assert first_mail[header] == second_mail[header] is not None
    assert state(database, person) == (2, False, True)


def test_a_mail_has_the_headers_without_which_filters_refuse_it(
    app: Flask, database: Database, person: Person, inbox: Inbox
) -> None:
    put(app, person)
    with mail_server(inbox) as url:
        sweep(app, url)
    ((_, mail),) = inbox.envelopes
    query = "SELECT id, created_at FROM shared.account_mails WHERE user_id = %s"
    with database.as_superuser() as superuser:
        ((mail_id, created_at),) = superuser.execute(query, (person.user_id,)).fetchall()
    moment = int(created_at.timestamp() * 1_000_000)
    assert mail["Message-ID"] == f"<{mail_id.hex}.{moment:x}@mail.example>"
    assert mail["Date"].datetime == created_at.replace(microsecond=0)


def test_a_server_that_hangs_ends_the_try_and_holds_no_row(app: Flask, database: Database, person: Person) -> None:
    put(app, person)
    with socket.create_server((HOST, 0)) as silent:
        trying = Thread(target=sweep, args=(app, f"smtp://{HOST}:{silent.getsockname()[1]}", 0.5))
        trying.start()
        connection, _ = silent.accept()
        with connection, database.as_superuser() as superuser:
            held = "SELECT id FROM shared.account_mails WHERE user_id = %s FOR UPDATE NOWAIT"
            superuser.execute(held, (person.user_id,))
            trying.join(5)
    assert not trying.is_alive()
    assert state(database, person) == (1, True, False)


def test_a_worker_that_died_after_its_claim_leaves_the_mail_to_the_next(
    app: Flask, database: Database, person: Person, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    put(app, person)
    with monkeypatch.context() as patch:
        patch.setattr(Sender, "_send", die)
        with pytest.raises(Killed):
            sweep(app, "smtp://unused")
    make_due(database, person)
    with mail_server(inbox) as url:
        sweep(app, url)
    assert len(inbox.envelopes) == 1


def test_a_mail_is_given_up_and_logged_when_its_token_has_expired(
    app: Flask, database: Database, person: Person, inbox: Inbox
) -> None:
    put(app, person)
    with database.as_superuser() as superuser:
        superuser.execute("UPDATE shared.account_mails SET expires_at = now() WHERE user_id = %s", (person.user_id,))
    with mail_server(inbox) as url, structlog.testing.capture_logs() as logged:
        sweep(app, url)
    assert inbox.envelopes == []
    assert [(entry["event"], entry["reason"]) for entry in logged] == [("mail_not_sent", "its time is over")]
    assert state(database, person) == (1, False, False)


def test_two_workers_share_the_mails(app: Flask, people: People, inbox: Inbox) -> None:
    recipients = [people.make(eur="member") for _ in range(6)]
    for person in recipients:
        put(app, person)
    with mail_server(inbox) as url:
        workers = [Thread(target=sweep, args=(app, url)) for _ in range(2)]
        for each in workers:
            each.start()
        for each in workers:
            each.join()
    assert sorted(to for ((to,), _) in inbox.envelopes) == sorted(person.email for person in recipients)


def test_a_mail_that_another_worker_claims_holds_up_no_other(
    app: Flask, database: Database, people: People, person: Person, inbox: Inbox
) -> None:
    other = people.make(eur="member")
    put(app, person)
    put(app, other)
    with database.as_superuser() as superuser, superuser.transaction(), mail_server(inbox) as url:
        superuser.execute("SELECT FROM shared.account_mails WHERE user_id = %s FOR UPDATE", (person.user_id,))
        sweep(app, url)
    assert [recipients for recipients, _ in inbox.envelopes] == [[other.email]]


def test_a_text_for_a_header_injects_none(app: Flask, person: Person, inbox: Inbox) -> None:
    """An address that an earlier release took is given up; the mails behind it are sent."""
    for recipient in ("a@b\nBcc: eve@example.com", "a@b>,<eve@example.com"):
        put(app, person, MailKind.PASSWORD_CHANGED, recipient)
    put(app, person, MailKind.PASSWORD_CHANGED)
    with mail_server(inbox) as url, structlog.testing.capture_logs() as logged:
        sweep(app, url)
    assert [recipients for recipients, _ in inbox.envelopes] == [[person.email]]
    assert [entry["event"] for entry in logged] == ["mail_not_sent", "mail_not_sent", "mail_sent"]


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_the_server_may_ask_for_a_password(app: Flask, person: Person, inbox: Inbox) -> None:
    given: list[Any] = []

    def authenticate(*arguments: Any) -> AuthResult:
        given.append(arguments[-1])
        return AuthResult(success=True)

    put(app, person)
    options = {"auth_required": True, "auth_require_tls": False, "authenticator": authenticate}
    with mail_server(inbox, **options) as url:
        sweep(app, url.replace("://", "://user:p%40ss@"))
    assert given == [LoginPassword(b"user", b"p@ss")]
    assert len(inbox.envelopes) == 1


def test_a_server_without_tls_gets_nothing_if_tls_is_wanted(
    app: Flask, database: Database, person: Person, inbox: Inbox
) -> None:
    put(app, person)
    with mail_server(inbox) as url:
        sweep(app, url.replace("smtp://", "smtp+starttls://"))
    assert inbox.envelopes == []
    assert state(database, person) == (1, True, False)


def test_without_a_transport_the_log_names_the_mail_and_not_its_token(
    app: Flask, database: Database, person: Person
) -> None:
    put(app, person)
    with app.app_context(), structlog.testing.capture_logs() as logged:
        worker.sweep()
    (entry,) = logged
    assert (entry["event"], entry["recipient"], entry["kind"]) == ("mail_not_sent", person.email, "password_reset")
    assert "token" not in str(entry)
    assert state(database, person) == (1, False, False)


def test_a_folder_takes_the_mails_readable_for_their_owner_only(
    database: Database, person: Person, tmp_path: Path
) -> None:
    folder = tmp_path / "mails"
    with running(database, mail_folder=str(folder), account_pages_url="") as app:
        put(app, person)
        stop = start_mail_worker(app, 0.01)
        try:
            with app.app_context():
                worker.sweep()
        finally:
            stop.set()
    (file,) = folder.iterdir()
    assert (file.suffix, file.stat().st_mode & 0o777) == (".eml", 0o600)
    assert "Send this token to POST /api/auth/password/reset:" in file.read_text()


def test_after_a_change_of_the_key_an_unsent_token_still_works(
    app: Flask, database: Database, person: Person, inbox: Inbox
) -> None:
    put(app, person)
    with running(database, secret_key="another key for tests, of 32 characters") as changed, mail_server(inbox) as url:
        sweep(changed, url)
        ((_, mail),) = inbox.envelopes
        with changed.app_context(), shared_side():
            assert holder_of(MailKind.PASSWORD_RESET, token_in(mail)).user_id == person.user_id


def test_an_invitation_of_nothing_can_not_be_sent(app: Flask, database: Database) -> None:
    """A token belongs to a user or to an invitation."""
    with app.app_context(), shared_side(), pytest.raises(Exception, match="account_mails_invitation_known"):
        put_token_mail(MailKind.INVITATION, "a@example.com", seconds=60, user_id=UUID(int=uuid4().int))
