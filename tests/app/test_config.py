"""The process starts only with valid settings; otherwise every fault is reported at once."""

import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, fields
from itertools import count
from pathlib import Path

import pytest

from app import config
from app.config import ConfigurationError, Settings, embedded_secrets, read_settings
from app.signing_keys import parse_keys
from tests.conftest import SIGNING_KEY, SIGNING_KEYS

RIGHT = {
    "DATABASE_URL": "postgresql://wallet_app:the-url-password@db.example/wallet",
    "ADMIN_DATABASE_URL": "postgresql://wallet_migrator:the-admin-password@db.example/wallet",
    "BACKUP_DATABASE_URL": "postgresql://wallet_backup:the-backup-password@db.example/wallet",
    "RELAY_DATABASE_URL": "postgresql://wallet_relay:the-relay-password@db.example/wallet",
    "TENANT_SECRET": "the tenant secret, of 32 or more.",
    "SECRET_KEY": "the signing key, of 32 characters.",
    "SIGNING_KEYS": SIGNING_KEYS,
}
OTHERS = (
    "BACKUP_KEY_FILE",
    "ACCEPTED_DRIFT_FILE",
    "BASE_DOMAIN",
    "TOKEN_SECONDS",
    "REFRESH_SECONDS",
    "SIGNING_KEYS_FILE",
    "MAX_CONNECTIONS",
    "CONNECTION_WAIT_SECONDS",
    "STATEMENT_TIMEOUT_MS",
)
CONNECTIONS = ("TENANT_LOGINS", "MAX_TENANT_CONNECTIONS", "TENANTS_PER_CONNECTION", "IDLE_IN_TRANSACTION_TIMEOUT_MS")
LIMITS = (
    *("LOGIN_FAILURE_LIMIT", "ACCOUNT_FAILURE_LIMIT", "REFRESH_RATE_LIMIT"),
    *("TENANT_RATE_LIMIT", "CALLER_RATE_LIMIT", "LOGIN_RATE_LIMIT", "RATE_LIMIT_STORAGE_URL", "TRUSTED_PROXIES"),
    *("TENANT_CONCURRENCY", "REQUEST_CONCURRENCY", "REQUEST_QUEUE", "QUEUE_SECONDS", "REQUEST_SECONDS"),
    "STREAM_SECONDS",
)
BROWSERS = ("CORS_ORIGINS", "REFRESH_OVERLAP_SECONDS")
OIDC = ("OIDC_ISSUER", "OIDC_AUDIENCE", "OIDC_ALGORITHMS")
REST = (
    *("REGISTRY_WATCH_SECONDS", "MAX_BODY_BYTES", "GROUP_POSTING", "HOLD_EXPIRY_SECONDS", "DOCUMENT_RENDERERS"),
    *("BROKER_URL", "WEBHOOK_ALLOWED_NETWORKS", "WEBHOOK_ALLOW_HTTP", "EVENT_STREAMS", "LOG_LEVEL"),
    *("EVENT_RETENTION_DAYS", "METRICS_PORT", "METRICS_TOKEN", "OTEL"),
)
ACCOUNTS = {
    "SMTP_URL": "smtp+starttls://user:the-smtp-password@mail.example:2525",
    "MAIL_FROM": "wallet@mail.example",
    "MAIL_FOLDER": "mails",
    "MAIL_SECONDS": "0.5",
    "ACCOUNT_PAGES_URL": "https://wallet.example/account",
    "INVITATION_SECONDS": "60",
    "RESET_SECONDS": "61",
    "EMAIL_CHANGE_SECONDS": "62",
    "MAIL_RATE_LIMIT": "3/day",
    "ACCOUNT_MAIL_LIMIT": "7/day",
    "ACCOUNT_RATE_LIMIT": "4/day",
    "INVITATION_RATE_LIMIT": "5/day",
    "SECOND_FACTOR_RATE_LIMIT": "6/day",
    "SECOND_FACTOR_DAILY_LIMIT": "8/day",
    "OPERATOR_SECOND_FACTOR": "True",
}
PROVER = ("PROVER_BUDGET", "PROVER_SECONDS", "PROVER_HEADS_DIR", "PROOF_MAX_AGE_SECONDS")
ALL = (*RIGHT, *OTHERS, *CONNECTIONS, *LIMITS, *BROWSERS, *OIDC, *REST, *ACCOUNTS, *PROVER)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Only the required settings, all valid; no embedded server starts here."""

    def refuse(_: Path) -> None:
        pytest.fail("the embedded server was started")

    monkeypatch.setattr(config, "embedded_server", refuse)
    for name in ALL:
        monkeypatch.delenv(name, raising=False)
    for name, value in RIGHT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_every_setting_has_a_variable_of_its_name() -> None:
    assert {field.name.upper() for field in fields(Settings)} == {*ALL, "IS_EMBEDDED"}


def test_what_is_required_is_enough() -> None:
    settings = read_settings()
    assert settings.database_url == RIGHT["DATABASE_URL"]
    assert settings.secret_key == RIGHT["SECRET_KEY"]
    assert settings.is_embedded is False
    assert (settings.token_seconds, settings.max_connections, settings.log_level) == (900, 20, "info")


def test_every_setting_is_read(environment: pytest.MonkeyPatch) -> None:
    given = {
        "BASE_DOMAIN": "wallet.example",
        "TOKEN_SECONDS": "60",
        "REFRESH_SECONDS": "3600",
        "MAX_CONNECTIONS": "2",
        "CONNECTION_WAIT_SECONDS": "0.5",
        "STATEMENT_TIMEOUT_MS": "1",
        "TENANT_LOGINS": "shared",
        "MAX_TENANT_CONNECTIONS": "1",
        "TENANTS_PER_CONNECTION": "2",
        "IDLE_IN_TRANSACTION_TIMEOUT_MS": "1",
        "REGISTRY_WATCH_SECONDS": "0.5",
        "MAX_BODY_BYTES": "1",
        "HOLD_EXPIRY_SECONDS": "0",
        "BROKER_URL": "amqp://wallet:the-broker-password@mq.example:5672",
        "LOG_LEVEL": "error",
        "METRICS_PORT": "9100",
        "METRICS_TOKEN": "sixteen-or-more.",
        "OTEL": "True",
        "TENANT_RATE_LIMIT": "1/day",
        "CALLER_RATE_LIMIT": "2/day",
        "TENANT_CONCURRENCY": "1",
        "REQUEST_CONCURRENCY": "3",
        "REQUEST_QUEUE": "0",
        "QUEUE_SECONDS": "0.0",
        "REQUEST_SECONDS": "0.5",
        "STREAM_SECONDS": "86400.0",
        "LOGIN_RATE_LIMIT": "999999999/second",
        "LOGIN_FAILURE_LIMIT": "3/day",
        "ACCOUNT_FAILURE_LIMIT": "4/day",
        "REFRESH_RATE_LIMIT": "5/day",
        "REFRESH_OVERLAP_SECONDS": "0",
        "RATE_LIMIT_STORAGE_URL": "rediss://:secret@cache.example:6380/1",
        "TRUSTED_PROXIES": "2",
        "PROVER_BUDGET": "0.5",
        "PROVER_SECONDS": "60.0",
        "PROVER_HEADS_DIR": "heads",
        "PROOF_MAX_AGE_SECONDS": "61.0",
        **ACCOUNTS,
    }
    for name, value in given.items():
        environment.setenv(name, value)
    settings = read_settings()
    assert {name: str(getattr(settings, name.lower())) for name in (*given, *RIGHT)} == given | RIGHT


def test_a_tenants_share_is_half_of_the_requests_at_once_unless_set(environment: pytest.MonkeyPatch) -> None:
    assert (read_settings().request_concurrency, read_settings().tenant_concurrency) == (8, 4)
    environment.setenv("REQUEST_CONCURRENCY", "1")
    assert read_settings().tenant_concurrency == 1


def test_all_faults_are_named_together(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("TENANT_SECRET")
    wrong = {
        "SECRET_KEY": "too short to sign with",
        "TOKEN_SECONDS": "0",
        "REFRESH_SECONDS": "0",
        "SIGNING_KEYS": "{}",
        "MAX_CONNECTIONS": "1",
        "CONNECTION_WAIT_SECONDS": "soon",
        "STATEMENT_TIMEOUT_MS": "-5",
        "TENANT_LOGINS": "both",
        "MAX_TENANT_CONNECTIONS": "-1",
        "TENANTS_PER_CONNECTION": "1",
        "IDLE_IN_TRANSACTION_TIMEOUT_MS": "0",
        "REGISTRY_WATCH_SECONDS": "-1",
        "MAX_BODY_BYTES": "64k",
        "HOLD_EXPIRY_SECONDS": "-1",
        "DOCUMENT_RENDERERS": "65",
        "LOG_LEVEL": "loud",
        "BACKUP_KEY_FILE": "/nowhere/keys",
        "ACCEPTED_DRIFT_FILE": "/nowhere/accepted",
        "TENANT_RATE_LIMIT": "lots",
        "CALLER_RATE_LIMIT": "1/minute;2/hour",
        "TENANT_CONCURRENCY": "0",
        "REQUEST_CONCURRENCY": "0",
        "REQUEST_QUEUE": "-1",
        "QUEUE_SECONDS": "-1",
        "REQUEST_SECONDS": "0",
        "STREAM_SECONDS": "0",
        "LOGIN_RATE_LIMIT": "30 per minute",
        "LOGIN_FAILURE_LIMIT": "20",
        "ACCOUNT_FAILURE_LIMIT": "100/year",
        "REFRESH_RATE_LIMIT": "-1/day",
        "REFRESH_OVERLAP_SECONDS": "301",
        "CORS_ORIGINS": "*",
        "RATE_LIMIT_STORAGE_URL": "memcached://cache.example",
        "TRUSTED_PROXIES": "-1",
        "BROKER_URL": "kafka://mq.example",
        "SMTP_URL": "mail.example:25",
        "MAIL_FROM": "wallet",
        "MAIL_SECONDS": "-1",
        "ACCOUNT_PAGES_URL": "http://wallet.example/account",
        "INVITATION_SECONDS": "59",
        "RESET_SECONDS": "0",
        "EMAIL_CHANGE_SECONDS": "-1",
        "MAIL_RATE_LIMIT": "5",
        "ACCOUNT_MAIL_LIMIT": "5 an hour",
        "ACCOUNT_RATE_LIMIT": "5/week",
        "INVITATION_RATE_LIMIT": "-5/hour",
        "SECOND_FACTOR_RATE_LIMIT": "",
        "SECOND_FACTOR_DAILY_LIMIT": "0/day",
        "OPERATOR_SECOND_FACTOR": "perhaps",
        "WEBHOOK_ALLOWED_NETWORKS": "10.0.0.1/8",
        "WEBHOOK_ALLOW_HTTP": "sometimes",
        "PROVER_BUDGET": "0",
        "PROVER_SECONDS": "0",
        "PROOF_MAX_AGE_SECONDS": "0",
    }
    for name, value in wrong.items():
        environment.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        read_settings()
    message = str(caught.value)
    assert [name for name in ("TENANT_SECRET", *wrong) if name not in message] == []
    assert [name for name in ("ADMIN_DATABASE_URL", "BASE_DOMAIN") if name in message] == []
    assert wrong["SECRET_KEY"] not in message, "a secret that is too short may be one that is used elsewhere"


@pytest.mark.parametrize("name", ["TENANT_SECRET", "SECRET_KEY"])
@pytest.mark.parametrize("value", [None, "", " ", "x" * 31])
def test_a_database_without_its_secrets_is_refused(
    environment: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    if value is None:
        environment.delenv(name)
    else:
        environment.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        read_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKEN_SECONDS", ""),
        ("TOKEN_SECONDS", "1.5"),
        ("TOKEN_SECONDS", "-1"),
        ("MAX_CONNECTIONS", "0"),
        ("STATEMENT_TIMEOUT_MS", "0"),
        ("MAX_BODY_BYTES", "0"),
        ("LOG_LEVEL", "INFO"),
        ("LOG_LEVEL", ""),
        ("TENANT_RATE_LIMIT", ""),
        ("TENANT_RATE_LIMIT", "6/minute\n"),
        ("LOGIN_RATE_LIMIT", "0/minute"),
        ("RATE_LIMIT_STORAGE_URL", "redis://"),
        ("CONNECTION_WAIT_SECONDS", ""),
        ("METRICS_PORT", "65536"),
        ("METRICS_TOKEN", "fifteen-only-ab"),
        ("METRICS_TOKEN", "sixteen or more."),
    ],
)
def test_a_value_out_of_its_range_is_refused(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        read_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "mysql://wallet_app:x@db.example/wallet"),
        ("ADMIN_DATABASE_URL", "nonsense"),
        ("CONNECTION_WAIT_SECONDS", "-1"),
        ("CONNECTION_WAIT_SECONDS", "nan"),
        ("BASE_DOMAIN", ".wallet.example"),
        ("BASE_DOMAIN", "https://wallet.example"),
        ("SMTP_URL", "smtp://"),
        ("SMTP_URL", "smtp://mail.example:many"),
        ("SMTP_URL", "smtp://mail.example/inbox"),
        ("BROKER_URL", "amqp://"),
        ("BROKER_URL", "redis://cache.example:many"),
        ("MAIL_FROM", "a@mail.example, b@mail.example"),
        ("MAIL_FROM", "a@mail.example\n"),
        ("ACCOUNT_PAGES_URL", "https://wallet.example/#account"),
    ],
)
def test_a_value_that_can_only_fail_later_is_refused_now(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        read_settings()


def test_a_mail_server_needs_a_sender(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SMTP_URL", "smtp://mail.example")
    with pytest.raises(ConfigurationError, match="MAIL_FROM"):
        read_settings()


def test_without_a_database_a_fault_is_found_before_one_is_started(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("DATABASE_URL")
    environment.setenv("MAX_CONNECTIONS", "many")
    with pytest.raises(ConfigurationError, match="MAX_CONNECTIONS"):
        read_settings()


def test_settings_cannot_be_changed() -> None:
    settings = read_settings()
    with pytest.raises(FrozenInstanceError):
        settings.secret_key = "another"  # type: ignore[misc]


def test_settings_do_not_show_their_secrets(environment: pytest.MonkeyPatch) -> None:
    """They end up in tracebacks, in logs of local variables and in shells."""
    for name in ("SMTP_URL", "MAIL_FROM"):
        environment.setenv(name, ACCOUNTS[name])
    environment.setenv("BROKER_URL", "amqp://wallet:the-broker-password@mq.example")
    shown = f"{read_settings()!r} {read_settings()!s}"
    secrets = (
        RIGHT["TENANT_SECRET"],
        RIGHT["SECRET_KEY"],
        str(SIGNING_KEY["d"]),
        "the-url-password",
        "the-admin-password",
        "the-smtp-password",
        "the-broker-password",
    )
    assert [secret for secret in secrets if secret in shown] == []


def test_the_secrets_of_an_embedded_server_are_made_once_and_for_the_owner_alone(
    tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    """Also by processes that start at once; threads stand for them here."""
    environment.setattr("os.getpid", count(1).__next__)
    with ThreadPoolExecutor(4) as pool:
        made = [job.result() for job in [pool.submit(embedded_secrets, tmp_path) for _ in range(4)]]
    environment.undo()
    assert len(set(made)) == 1
    assert embedded_secrets(tmp_path) == made[0]
    values = [getattr(made[0], name) for name in made[0].__slots__]
    assert len(set(values)) == len(values)
    assert min(map(len, values)) >= 32
    (kept,) = tmp_path.iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_origins_are_as_browsers_send_them(environment: pytest.MonkeyPatch) -> None:
    assert read_settings().cors_origins == ()
    environment.setenv("CORS_ORIGINS", "https://app.example,http://localhost:3000,https://[::1]:8443")
    assert read_settings().cors_origins == ("https://app.example", "http://localhost:3000", "https://[::1]:8443")


NO_ORIGINS = (
    *("*", "null", "app.example", "https://", "https://app.example/", "https://App.example", "https://*.app.example"),
    *("https://app.example:443", "http://app.example:80", "https://a.example\n", ".*", "https://a@b.example"),
)


@pytest.mark.parametrize("origins", NO_ORIGINS)
def test_what_no_browser_sends_or_every_page_is_no_origin(environment: pytest.MonkeyPatch, origins: str) -> None:
    environment.setenv("CORS_ORIGINS", f"https://right.example,{origins}")
    with pytest.raises(ConfigurationError, match="CORS_ORIGINS"):
        read_settings()


def test_webhooks_go_to_public_networks_unless_told(environment: pytest.MonkeyPatch) -> None:
    assert (read_settings().webhook_allowed_networks, read_settings().webhook_allow_http) == ((), False)
    environment.setenv("WEBHOOK_ALLOWED_NETWORKS", "10.0.0.0/8,fd00::/8")
    assert read_settings().webhook_allowed_networks == ("10.0.0.0/8", "fd00::/8")


PROVIDER = {"OIDC_ISSUER": "https://id.example/realms/a", "OIDC_AUDIENCE": "wallet"}


def test_an_openid_provider_is_believed_by_its_asymmetric_algorithms(environment: pytest.MonkeyPatch) -> None:
    assert (read_settings().oidc_issuer, read_settings().oidc_audience) == ("", "")
    for name, value in PROVIDER.items():
        environment.setenv(name, value)
    assert read_settings().oidc_algorithms == ("RS256", "ES256")
    environment.setenv("OIDC_ALGORITHMS", "PS512,ES384")
    assert read_settings().oidc_algorithms == ("PS512", "ES384")


@pytest.mark.parametrize("issuer", ["http://localhost:8080/realms/a", "http://127.0.0.1", "https://[::1]:9/"])
def test_a_provider_on_this_machine_needs_no_https(environment: pytest.MonkeyPatch, issuer: str) -> None:
    environment.setenv("OIDC_ISSUER", issuer)
    environment.setenv("OIDC_AUDIENCE", "wallet")
    assert read_settings().oidc_issuer == issuer


WRONG_PROVIDERS = {
    "no audience": {"OIDC_AUDIENCE": None},
    "an empty audience": {"OIDC_AUDIENCE": ""},
    "no https": {"OIDC_ISSUER": "http://id.example"},
    "localhost in front of another host": {"OIDC_ISSUER": "http://localhost.id.example"},
    "localhost for a user's name": {"OIDC_ISSUER": "http://localhost@id.example"},
    "another scheme": {"OIDC_ISSUER": "file:///etc/passwd"},
    "a query": {"OIDC_ISSUER": "https://id.example?a=b"},
    "a secret key's algorithm": {"OIDC_ALGORITHMS": "RS256,HS256"},
    "no signature": {"OIDC_ALGORITHMS": "none"},
    "no algorithm": {"OIDC_ALGORITHMS": ""},
}


@pytest.mark.parametrize("what", WRONG_PROVIDERS)
def test_a_provider_that_can_not_be_believed_stops_the_start(environment: pytest.MonkeyPatch, what: str) -> None:
    for name, value in (PROVIDER | WRONG_PROVIDERS[what]).items():
        environment.setenv(name, value) if value is not None else environment.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match=next(iter(WRONG_PROVIDERS[what]))):
        read_settings()


def test_signing_keys_come_from_a_file_or_from_a_variable(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(SIGNING_KEYS)
    environment.setenv("SIGNING_KEYS_FILE", str(file))
    with pytest.raises(ConfigurationError, match="SIGNING_KEYS is set too"):
        read_settings()
    environment.delenv("SIGNING_KEYS")
    assert (read_settings().signing_keys_file, read_settings().signing_keys) == (str(file), "")


@pytest.mark.parametrize("kept", [None, "", "{}", "missing"])
def test_without_signing_keys_the_fault_says_how_to_make_them(
    environment: pytest.MonkeyPatch, tmp_path: Path, kept: str | None
) -> None:
    environment.delenv("SIGNING_KEYS")
    if kept is not None:
        file = tmp_path / "keys.json"
        environment.setenv("SIGNING_KEYS_FILE", str(file) if kept else "")
        if kept != "missing":
            file.write_text(kept)
    with pytest.raises(ConfigurationError, match=r"SIGNING_KEYS_FILE(.|\n)*python -m scripts.rotate_signing_key"):
        read_settings()


def test_an_embedded_installation_makes_its_keys_once(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Server:
        def url(self, *_: str) -> str:
            return "postgresql://embedded/wallet"

    for name in ("DATABASE_URL", "SIGNING_KEYS"):
        environment.delenv(name)
    environment.setenv("DATA_DIR", str(tmp_path))
    environment.setattr(config, "embedded_server", lambda _: Server())
    file = Path(read_settings().signing_keys_file)
    made = file.read_text()
    assert (file.parent, len(parse_keys(made).keys)) == (tmp_path, 1)
    assert read_settings().signing_keys_file == str(file)
    assert file.read_text() == made
