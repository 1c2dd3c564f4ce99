"""The ways out for a mail: an SMTP server, or a folder of files."""

import smtplib
import ssl
from email.message import EmailMessage
from pathlib import Path
from time import time_ns
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from app.secret_files import scratch_beside

SMTP_SECONDS: Final = 10.0  # for each answer of the server
DEFAULT_PORTS: Final = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}


class Transport(Protocol):
    def deliver(self, message: EmailMessage) -> None:
        """Hand the mail over. Raises OSError (and with it SMTPException) if that fails."""


class SmtpTransport:
    """The server of `smtp://`, `smtp+starttls://` or `smtps://`, with `user:password@` if it asks for them. The
    certificate of a TLS server is verified.
    """

    def __init__(self, url: str, seconds: float = SMTP_SECONDS) -> None:
        found = urlsplit(url)
        self._scheme = found.scheme
        self._place = (found.hostname or "", found.port or DEFAULT_PORTS[found.scheme])
        self._login = (unquote(found.username), unquote(found.password or "")) if found.username else None
        self._seconds = seconds

    def deliver(self, message: EmailMessage) -> None:
        with self._connected() as server:
            if self._scheme == "smtp+starttls":
                server.starttls(context=ssl.create_default_context())
            if self._login:
                server.login(*self._login)
            server.send_message(message)

    def _connected(self) -> smtplib.SMTP:
        host, port = self._place
        if self._scheme == "smtps":
            return smtplib.SMTP_SSL(host, port, timeout=self._seconds, context=ssl.create_default_context())
        return smtplib.SMTP(host, port, timeout=self._seconds)


class FolderTransport:
    """Writes each mail as an .eml file that only its owner can read. For development: the files have tokens."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def deliver(self, message: EmailMessage) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{time_ns()}.eml"
        scratch_beside(path, message.as_string()).rename(path)


def transport_of(smtp_url: str, folder: str) -> Transport | None:
    """The configured way out; None if there is none."""
    if smtp_url:
        return SmtpTransport(smtp_url)
    return FolderTransport(Path(folder)) if folder else None
