"""Mails go out over TLS to a server whose certificate is trusted, and to no other."""

import ssl
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.mail.transport import FolderTransport, SmtpTransport, transport_of
from tests.app.mail.test_worker import HOST, Inbox, mail_server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that signs itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


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
