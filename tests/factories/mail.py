"""The outbox of account mails, as a mail server sees it, without one: the mails that the service would send."""

import re
from email.message import EmailMessage

from flask import Flask

from app.mail import worker
from app.mail.worker import Sender


class Mailbox:
    """A transport that keeps each mail in memory."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._mails: list[EmailMessage] = []

    def deliver(self, message: EmailMessage) -> None:
        self._mails.append(message)

    def collect(self, recipient: str) -> list[EmailMessage]:
        """Send what is due, and take the mails of this recipient out of the box, oldest first."""
        sender: Sender = self._app.extensions[worker.EXTENSION]
        before, sender.transport = sender.transport, self
        try:
            with self._app.app_context():
                sender.send_due()
        finally:
            sender.transport = before
        found = [mail for mail in self._mails if mail["To"] == recipient]
        self._mails = [mail for mail in self._mails if mail["To"] != recipient]
        return found

    def token(self, recipient: str) -> str:
        """The token of the only mail to this recipient."""
        (mail,) = self.collect(recipient)
        return token_in(mail)

    def subjects(self, recipient: str) -> list[str]:
        return [mail["Subject"] for mail in self.collect(recipient)]


def token_in(mail: EmailMessage) -> str:
    found = re.search(r"token=([\w-]{43})\s", mail.get_content(), re.ASCII)
    assert found, mail.get_content()
    return found[1]
