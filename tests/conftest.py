"""The suite's fixtures: one database with the tenants eur and km, the application on it, and people.

All commits are real. Each test makes its own people and wallets, and reads only those. A test that needs a whole
tenant, or breaks something, takes `fresh_database`.
"""

import gc
import json
import os
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import structlog
from argon2 import PasswordHasher
from flask import Flask

from app import create_app
from app.api.application import Application
from app.auth import passwords
from app.config import Settings
from app.streams import routes as streams
from app.tenancy import MIGRATIONS
from tenant_schemas.flask import EXTENSION
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api, ClosingClient
from tests.factories.application import backup_policy, reserved_slugs  # noqa: F401
from tests.factories.brokers import nats_broker, rabbit_broker, redis_broker  # noqa: F401
from tests.factories.mail import Mailbox
from tests.factories.people import People
from tests.factories.refusals import refusals_are_declared  # noqa: F401  An autouse fixture.
from tests.servers.fixtures import (  # noqa: F401  pytest finds the fixtures and hooks of two servers here.
    both_servers,
    embedded_template,
    other_database,
    pytest_configure,
    pytest_generate_tests,
    server_version,
    servers,
    template,
)

SECRET_KEY = "a signing key for tests, of 32 characters or more"
SIGNING_KEY = {
    **{"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "Ed25519", "kid": "tests", "nbf": 0},
    "x": "0jTtg1zA4SDgKWfs8ietgOY-PABzJNaYg58wec7ZrCw",
    "d": "rIyd4mKZd4VyWIu32R47LHBM_5e4fAtYfteoItEjAzk",
}
SIGNING_KEYS = json.dumps({"keys": [SIGNING_KEY]})


def pytest_sessionstart() -> None:
    """A collection of garbage after each 700 new objects was a third of the processor time of many tests."""
    gc.set_threshold(50_000, 10, 10)


# Each test of these modules takes many seconds, in many processes.
LONG = (
    "test_benchmark.py",
    "test_demo.py",
    "test_journeys.py",
    "test_runbook.py",
    "test_schemathesis.py",
    "test_serve.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers, long tests come first: all run in the first worker, one after another, and no worker waits
    at the end for another one's long test.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.path.name not in LONG)


def pytest_collection_finish() -> None:
    """All tests and modules live to the end, so no collection of garbage needs to visit them."""
    gc.freeze()


@pytest.fixture(scope="session")
def tenancy_migrations() -> Migrations:
    return MIGRATIONS


@pytest.fixture(scope="session")
def tenant_settings() -> Mapping[str, Mapping[str, Any]]:
    return {"eur": {"currency": "EUR", "currencies": ["USD", "JPY", "KWD"]}, "km": {"currency": "BAM"}}


def settings_for(database: Database, **changed: Any) -> Settings:
    """The settings of an application on a test database."""
    settings: dict[str, Any] = {
        "database_url": database.app_url,
        "admin_database_url": database.admin_url,
        "backup_database_url": "",
        "relay_database_url": database.url(database.roles.relay),
        "backup_key_file": "",
        "tenant_secret": database.tenant_secret,
        "secret_key": SECRET_KEY,
        "is_embedded": False,
        "base_domain": "wallet.example",
        "token_seconds": 900,
        "refresh_seconds": 30 * 86_400,
        "refresh_overlap_seconds": 30,
        "signing_keys_file": "",
        "signing_keys": SIGNING_KEYS,
        "oidc_issuer": "",
        "oidc_audience": "",
        "oidc_algorithms": ("RS256", "ES256"),
        "tenant_logins": "own",
        "max_connections": 40,
        "max_tenant_connections": 40,
        "tenants_per_connection": 100,
        "connection_wait_seconds": 5.0,
        "statement_timeout_ms": 10_000,
        "idle_in_transaction_timeout_ms": 60_000,
        "registry_watch_seconds": 0,
        "max_body_bytes": 65_536,
        # Only tests of limits set them; the other tests share one process, and their clients rarely close responses.
        "request_concurrency": 1_000_000,
        "request_queue": 0,
        "queue_seconds": 0.0,
        "request_seconds": 30.0,
        "stream_seconds": 600.0,
        "event_streams": 16,
        "event_retention_days": 30,
        "tenant_rate_limit": "999999999/day",
        "caller_rate_limit": "999999999/day",
        "tenant_concurrency": 1_000_000,
        "login_rate_limit": "999999999/day",
        "login_failure_limit": "999999999/day",
        "account_failure_limit": "999999999/day",
        "refresh_rate_limit": "999999999/day",
        "rate_limit_storage_url": "",
        "trusted_proxies": 0,
        "cors_origins": (),
        "group_posting": True,
        "hold_expiry_seconds": 0,
        "document_renderers": 1,
        "broker_url": "",
        "smtp_url": "",
        "mail_from": "wallet@mail.example",
        "mail_folder": "",
        "mail_seconds": 0,
        "account_pages_url": "https://wallet.example/account",
        "invitation_seconds": 7 * 86_400,
        "reset_seconds": 1_800,
        "email_change_seconds": 3_600,
        "mail_rate_limit": "999999999/day",
        "account_mail_limit": "999999999/day",
        "account_rate_limit": "999999999/day",
        "invitation_rate_limit": "999999999/day",
        "second_factor_rate_limit": "999999999/day",
        "second_factor_daily_limit": "999999999/day",
        "operator_second_factor": False,
        "webhook_allowed_networks": (),
        "webhook_allow_http": False,
        "prover_budget": 100.0,
        "prover_seconds": 3600.0,
        "prover_heads_dir": "",
        "proof_max_age_seconds": 172_800.0,
        "log_level": "info",
        "metrics_port": 0,
        "metrics_token": "a token for metrics".replace(" ", "-"),
        "otel": False,
    }
    return Settings(**(settings | changed))


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    """An application that a test creates logs to that test's captured output, which is closed afterwards."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(autouse=True)
def signals_restored() -> Iterator[None]:
    """A command that a test calls in this process may handle signals, and the next test's Ctrl-C must end it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def streams_end_at_once() -> Iterator[None]:
    """An event stream has no end of its own, and the client of an application in this process would read on for ever.
    Served applications are not concerned.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "PART_OF_STREAM_SECONDS", 0.0)
        yield


@pytest.fixture(scope="session", autouse=True)
def answers_are_closed() -> Iterator[None]:
    """By the clients of applications in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Application, "test_client_class", ClosingClient)
        yield


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords() -> Iterator[None]:
    """Hashes that take no time in this process; `tests/app/auth/test_passwords.py` covers their cost."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_hasher", cheap)
        patch.setattr(passwords, "UNKNOWN_USER_HASH", cheap.hash("unknown"))
        yield


@pytest.fixture(scope="session")
def app(database: Database) -> Iterator[Flask]:
    """The application on the shared database."""
    yield from running_app(database)


@pytest.fixture
def fresh_app(fresh_database: Database) -> Iterator[Flask]:
    """The application on a database of this test's own."""
    yield from running_app(fresh_database)


def running_app(database: Database) -> Iterator[Flask]:
    app = create_app(settings_for(database))
    yield app
    app.extensions[EXTENSION].close()


@pytest.fixture
def api(app: Flask) -> Api:
    return Api(app)


@pytest.fixture
def people(app: Flask) -> People:
    return People(app)


@pytest.fixture
def mailbox(app: Flask) -> Mailbox:
    """The mails that the application sends."""
    return Mailbox(app)
