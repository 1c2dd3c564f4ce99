"""Sends the mails of the outbox while the service runs. No request waits for a mail server.

A mail is sent at least once: it is claimed for a while, sent, and then marked. A process that dies in between leaves it
to the next claim. A mail that can't be sent is tried again, less and less often, until its token has expired. Several
processes work side by side. Without a transport, nothing is sent, and the log says so.
"""

from datetime import datetime
from email.errors import MessageError
from smtplib import SMTPDataError, SMTPRecipientsRefused
from threading import Event
from typing import Final, NamedTuple
from uuid import UUID

import structlog
from flask import Flask

from app.config import Settings
from app.current import current_app
from app.idle_sweep import start_sweeps
from app.mail.models import MailKind
from app.mail.texts import compose
from app.mail.tokens import hash_of, token_of
from app.mail.transport import Transport, transport_of
from tenant_schemas.flask import connections

log = structlog.get_logger(__name__)

EXTENSION: Final = "mail_sender"
FIRST_PAUSE_SECONDS: Final = 60  # more than a try takes, usually; it doubles with each try
LONGEST_PAUSE_SECONDS: Final = 3600
_ABOUT_ONE_MAIL: Final = (SMTPRecipientsRefused, SMTPDataError)  # The mail server works, and others may be sent.

# The pause is also the claim: no db transaction is open while the mail server is asked.
_CLAIM: Final = """
    UPDATE shared.account_mails SET attempts = attempts + 1,
        next_attempt_at = now() + make_interval(secs => least(%s * 2 ^ least(attempts, 16), %s))
    WHERE id = (SELECT id FROM shared.account_mails WHERE next_attempt_at <= now()
        ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id, kind, recipient, details, token_hash, created_at, attempts, expires_at <= now()"""
_DONE: Final = "UPDATE shared.account_mails SET next_attempt_at = NULL, sent_at = now() WHERE id = %s"
_GIVE_UP: Final = "UPDATE shared.account_mails SET next_attempt_at = NULL WHERE id = %s"
_NEW_HASH: Final = "UPDATE shared.account_mails SET token_hash = %s WHERE id = %s"


class _Claimed(NamedTuple):
    id: UUID
    kind: str
    recipient: str
    details: dict[str, str]
    token_hash: bytes | None
    created_at: datetime
    attempts: int
    is_over: bool


class Sender:
    """The sender of one process."""

    def __init__(self, transport: Transport | None, sender: str, pages_url: str) -> None:
        self.transport = transport
        self._sender = sender
        self._pages_url = pages_url

    def send_due(self) -> None:
        """Send the mails that are due, until none is left or the mail server does not answer."""
        while rows := connections().shared.one_statement(_CLAIM, (FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)):
            mail = _Claimed(*rows[0])
            about = {"mail": str(mail.id), "kind": mail.kind, "recipient": mail.recipient, "attempt": mail.attempts}
            if mail.is_over or self.transport is None:
                reason = "its time is over" if mail.is_over else "neither SMTP_URL nor MAIL_FOLDER is set"
                _give_up(mail.id, reason, about)
                continue
            try:
                self._send(self.transport, mail)
            except (ValueError, KeyError, MessageError) as error:  # The mail can't be written, now or later.
                _give_up(mail.id, f"{type(error).__name__}: {error}", about)
            except OSError as error:
                log.warning("mail_not_delivered", error=f"{type(error).__name__}: {error}", **about)
                if not isinstance(error, _ABOUT_ONE_MAIL):
                    return

    def _send(self, transport: Transport, mail: _Claimed) -> None:
        token = None if mail.token_hash is None else token_of(mail.id)
        message = compose(
            MailKind(mail.kind),
            mail.recipient,
            mail.details,
            mail_id=mail.id,
            created_at=mail.created_at,
            token=token,
            sender=self._sender,
            pages_url=self._pages_url,
        )
        if token is not None and hash_of(token) != mail.token_hash:  # SECRET_KEY was changed meanwhile.
            connections().shared.one_statement(_NEW_HASH, (hash_of(token), mail.id))
        transport.deliver(message)
        connections().shared.one_statement(_DONE, (mail.id,))
        log.info("mail_sent", mail=str(mail.id), kind=mail.kind)


def _give_up(mail_id: UUID, reason: str, about: dict[str, object]) -> None:
    connections().shared.one_statement(_GIVE_UP, (mail_id,))
    log.error("mail_not_sent", reason=reason, **about)


def init_app(app: Flask, settings: Settings) -> None:
    transport = transport_of(settings.smtp_url, settings.mail_folder)
    app.extensions[EXTENSION] = Sender(transport, settings.mail_from, settings.account_pages_url)


def start_mail_worker(app: Flask, seconds: float) -> Event:
    """Send mails in a daemon thread every `seconds`, or never if it is 0, until the returned event is set. Call this
    after the process was forked.
    """
    return start_sweeps(app, "mail", seconds, sweep)


def sweep() -> None:
    """One round."""
    sender: Sender = current_app.extensions[EXTENSION]
    sender.send_due()
