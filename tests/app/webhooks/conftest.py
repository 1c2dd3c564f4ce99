"""A consumer of webhooks with a certificate of its own, and a sender that trusts it."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from app.webhooks.addresses import AddressRules
from app.webhooks.sender import Sender
from tenant_schemas.testing.plugin import Database
from tests.factories.certificates import self_signed
from tests.factories.hooked import Hooked, hooked_tenant
from tests.factories.webhooks import HOST, NAME, Consumer, Reply, consumer_of_webhooks


@pytest.fixture(scope="session")
def hooks_certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("hooks") / "server.pem", NAME)


@pytest.fixture(scope="session")
def served_consumer(hooks_certificate: Path) -> Iterator[Consumer]:
    with consumer_of_webhooks(hooks_certificate) as consumer:
        yield consumer


@pytest.fixture
def consumer(served_consumer: Consumer) -> Consumer:
    """The consumer, which has got nothing yet and answers 200."""
    served_consumer.take()
    served_consumer.server_names.clear()
    served_consumer.answer = lambda _: Reply()
    return served_consumer


@pytest.fixture(scope="session")
def hooks_sender(hooks_certificate: Path) -> Sender:
    """It may send to this machine, where the consumer's name leads, and trusts its certificate."""
    return Sender(
        AddressRules.of(["127.0.0.0/8"], allow_http=True),
        resolve=lambda host, _: [HOST] if host == NAME else [host],
        tls=ssl.create_default_context(cafile=hooks_certificate),
    )


@pytest.fixture
def hooked(app: Flask, database: Database, hooks_sender: Sender) -> Iterator[Hooked]:
    with hooked_tenant(app, database, hooks_sender) as hooked:
        yield hooked
