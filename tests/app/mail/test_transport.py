"""Mails go out over TLS to a server whose certificate is trusted, and to no other."""

import ssl
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from app.mail.transport import FolderTransport, SmtpTransport, transport_of
from tests.app.mail.test_worker import HOST, Inbox, mail_server
from tests.factories.certificates import self_signed


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that signs itself, with its key."""
    return self_signed(tmp_path_factory.mktemp("tls") / "server.pem", HOST)


def a_mail() -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "wallet@mail.example", "ana@example.com", "Hello"
    mail.set_content("Hello")
    return mail


@pytest.mark.filterwarnings("ignore:tls_context.verify_mode")
@pytest.mark.parametrize(("scheme", "option"), [("smtps", "ssl_context"), ("smtp+starttls", "tls_context")])
def test_tls_is_for_a_trusted_certificate_only(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, option: str
) -> None:
    inbox, served = Inbox(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(certificate)
    options: dict[str, Any] = {option: served}
    with mail_server(inbox, **options) as url:
        transport = SmtpTransport(url.replace("smtp://", f"{scheme}://"), 5.0)
        with pytest.raises(ssl.SSLCertVerificationError):
            transport.deliver(a_mail())
        assert inbox.envelopes == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        transport.deliver(a_mail())
    assert [recipients for recipients, _ in inbox.envelopes] == [["ana@example.com"]]


def test_the_settings_choose_the_way_out(tmp_path: Path) -> None:
    assert isinstance(transport_of("smtp://mail.example", str(tmp_path)), SmtpTransport)
    assert isinstance(transport_of("", str(tmp_path)), FolderTransport)
    assert transport_of("", "") is None
