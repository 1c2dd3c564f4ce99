"""The settings, read once from the environment into a frozen object. All faults are reported together, and the process
does not start.

Without DATABASE_URL everything runs on an embedded PostgreSQL under DATA_DIR, with secrets created there at the first
start.
"""

import json
import os
import re
import secrets
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from environs import Env, EnvValidationError, ValidationError, validate
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from app.brokers.connect import SCHEMES as BROKER_SCHEMES
from app.secret_files import make_once
from app.signing_keys import ensure_key_file, parse_keys
from tenant_schemas import embedded
from tenant_schemas.backup.signature import read_key_file
from tenant_schemas.errors import AcceptedDriftRefused, KeyRefused
from tenant_schemas.roles import relay_password
from tenant_schemas.schema_diff.accepted import read_accepted_drift

ROOT = Path(__file__).resolve().parent.parent
DATABASE_NAME = "wallet"
DEFAULT_CONCURRENCY = 8
# The form of a rate limit, also in a tenant's settings.
RATE = r"[1-9][0-9]{0,8}/(second|minute|hour|day)"
RATE_WANTED = "must be a number and a time, like 600/minute; the times are second, minute, hour and day"
# Asymmetric algorithms only: `none` needs no key, and HS* would accept a public key as the secret.
OIDC_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
_ISSUER = r"^$|^https://[^\s?#]+$|^http://(localhost|127\.0\.0\.1)(:[0-9]+)?(/[^\s?#]*)?$"
# As a browser sends it: in lower case, without a path and without the scheme's own port. `*` and `null` are every page.
_HOST = r"([a-z0-9-]+(\.[a-z0-9-]+)*|\[[0-9a-f:.]+\])"
_ORIGIN = rf"(https://{_HOST}(?!:443\Z)|http://{_HOST}(?!:80\Z))(:[0-9]{{1,5}})?"
_STORAGE = r"^$|^rediss?://.+"
HOW_TO_MAKE_KEYS = "\n`python -m scripts.rotate_signing_key --file F` creates a key file for SIGNING_KEYS_FILE."
_ADDRESS = r"^[^@\s<>,;:]+@[^@\s<>,;:]+\Z"
_PAGE = r"^\Z|^https://[^\s?#]+\Z|^http://(localhost|127\.0\.0\.1)(:[0-9]+)?(/[^\s?#]*)?\Z"
_UNSPACED = r"^\Z|^[!-~]{16,}\Z"
_DOMAIN = r"^([a-zA-Z0-9-]+(\.[a-zA-Z0-9-]+)*)?$"


class ConfigurationError(Exception):
    """One or more settings are invalid. The message lists all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of the process. Each has the name of its environment variable in lower case; docs/settings.md
    explains them.
    """

    database_url: str = field(repr=False)
    admin_database_url: str = field(repr=False)
    backup_database_url: str = field(repr=False)
    relay_database_url: str = field(repr=False)
    backup_key_file: str
    accepted_drift_file: str
    tenant_secret: str = field(repr=False)
    secret_key: str = field(repr=False)
    is_embedded: bool
    base_domain: str
    token_seconds: int
    refresh_seconds: int
    refresh_overlap_seconds: int
    signing_keys_file: str
    signing_keys: str = field(repr=False)
    oidc_issuer: str
    oidc_audience: str
    oidc_algorithms: tuple[str, ...]
    tenant_logins: str
    max_connections: int
    max_tenant_connections: int
    tenants_per_connection: int
    connection_wait_seconds: float
    statement_timeout_ms: int
    idle_in_transaction_timeout_ms: int
    registry_watch_seconds: float
    max_body_bytes: int
    request_concurrency: int
    request_queue: int
    queue_seconds: float
    request_seconds: float
    stream_seconds: float
    event_streams: int
    event_retention_days: int
    tenant_rate_limit: str
    caller_rate_limit: str
    tenant_concurrency: int
    login_rate_limit: str
    login_failure_limit: str
    account_failure_limit: str
    refresh_rate_limit: str
    rate_limit_storage_url: str = field(repr=False)
    trusted_proxies: int
    cors_origins: tuple[str, ...]
    group_posting: bool
    hold_expiry_seconds: int
    document_renderers: int
    broker_url: str = field(repr=False)
    smtp_url: str = field(repr=False)
    mail_from: str
    mail_folder: str
    mail_seconds: float
    account_pages_url: str
    invitation_seconds: int
    reset_seconds: int
    email_change_seconds: int
    mail_rate_limit: str
    account_mail_limit: str
    account_rate_limit: str
    invitation_rate_limit: str
    second_factor_rate_limit: str
    second_factor_daily_limit: str
    operator_second_factor: bool
    webhook_allowed_networks: tuple[str, ...]
    webhook_allow_http: bool
    prover_budget: float
    prover_seconds: float
    prover_heads_dir: str
    proof_max_age_seconds: float
    log_level: str
    metrics_port: int
    metrics_token: str = field(repr=False)
    otel: bool


def read_settings() -> Settings:
    """Read the environment. Starts the embedded server if DATABASE_URL is not set. Raises ConfigurationError."""
    env = Env(eager=False)
    secret = validate.Length(min=32, error="must have 32 characters or more")
    timeout = validate.Range(min=1, max=2**31 - 1, error="must be 1 to 2147483647")
    not_negative = validate.Range(min=0, error="must be 0 or more")
    day = validate.Range(min=0, max=86_400, error="must be 0 to 86400")
    positive = validate.Range(min=1, error="must be 1 or more")
    rate = validate.Regexp(rf"^{RATE}\Z", re.ASCII, error=RATE_WANTED)
    few = validate.Range(min=0, max=64, error="must be 0 to 64")
    several = validate.Range(min=2, error="must be 2 or more")
    database_url = env.str("DATABASE_URL", "", validate=_is_database_url)
    is_given = bool(os.environ.get("DATABASE_URL"))
    required = {} if is_given else {"default": ""}
    given: dict[str, Any] = {
        "database_url": database_url,
        "admin_database_url": env.str("ADMIN_DATABASE_URL", "", validate=_is_database_url),
        "backup_database_url": env.str("BACKUP_DATABASE_URL", "", validate=_is_database_url),
        "relay_database_url": env.str("RELAY_DATABASE_URL", "", validate=_is_database_url),
        "backup_key_file": env.str("BACKUP_KEY_FILE", "", validate=_is_backup_key_file),
        "accepted_drift_file": env.str("ACCEPTED_DRIFT_FILE", "", validate=_is_accepted_drift_file),
        "tenant_secret": env.str("TENANT_SECRET", validate=secret if is_given else None, **required),
        "secret_key": env.str("SECRET_KEY", validate=secret if is_given else None, **required),
        "base_domain": env.str(
            "BASE_DOMAIN", "", validate=validate.Regexp(_DOMAIN, error="must be like wallet.example")
        ),
        "token_seconds": env.int("TOKEN_SECONDS", 900, validate=positive),
        "refresh_seconds": env.int("REFRESH_SECONDS", 30 * 86_400, validate=timeout),
        "refresh_overlap_seconds": env.int(
            "REFRESH_OVERLAP_SECONDS", 30, validate=validate.Range(0, 300, error="must be 0 to 300")
        ),
        **_signing_keys(env, is_given),
        **_oidc_settings(env),
        "tenant_logins": env.str("TENANT_LOGINS", "own", validate=validate.OneOf(["own", "shared"])),
        "max_connections": env.int("MAX_CONNECTIONS", 20, validate=several),
        "max_tenant_connections": env.int("MAX_TENANT_CONNECTIONS", 0, validate=not_negative),
        "tenants_per_connection": env.int("TENANTS_PER_CONNECTION", 100, validate=several),
        "connection_wait_seconds": env.float("CONNECTION_WAIT_SECONDS", 5.0, validate=not_negative),
        "statement_timeout_ms": env.int("STATEMENT_TIMEOUT_MS", 10_000, validate=timeout),
        "idle_in_transaction_timeout_ms": env.int("IDLE_IN_TRANSACTION_TIMEOUT_MS", 60_000, validate=timeout),
        "registry_watch_seconds": env.float("REGISTRY_WATCH_SECONDS", 2.0, validate=day),
        "max_body_bytes": env.int("MAX_BODY_BYTES", 65_536, validate=positive),
        **_request_settings(env),
        "tenant_rate_limit": env.str("TENANT_RATE_LIMIT", "6000/minute", validate=rate),
        "caller_rate_limit": env.str("CALLER_RATE_LIMIT", "3000/minute", validate=rate),
        **_attempt_limits(env, rate),
        "rate_limit_storage_url": env.str(
            "RATE_LIMIT_STORAGE_URL", "", validate=validate.Regexp(_STORAGE, error="must be like redis://host:6379/0")
        ),
        "trusted_proxies": env.int("TRUSTED_PROXIES", 0, validate=not_negative),
        "cors_origins": tuple(env.list("CORS_ORIGINS", [], validate=_are_origins) or ()),
        "group_posting": env.bool("GROUP_POSTING", True),
        "hold_expiry_seconds": env.int("HOLD_EXPIRY_SECONDS", 60, validate=day),
        "document_renderers": env.int("DOCUMENT_RENDERERS", 1, validate=few),
        "broker_url": env.str("BROKER_URL", "", validate=_is_broker_url) or "",
        **_account_settings(env),
        "webhook_allowed_networks": tuple(env.list("WEBHOOK_ALLOWED_NETWORKS", [], validate=_are_networks) or ()),
        "webhook_allow_http": env.bool("WEBHOOK_ALLOW_HTTP", False),
        **_prover_settings(env),
        **_observation_settings(env),
    }
    try:
        env.seal()
    except EnvValidationError as error:
        hint = HOW_TO_MAKE_KEYS if {"SIGNING_KEYS_FILE", "SIGNING_KEYS"} & set(error.error_messages) else ""
        raise ConfigurationError(f"These settings are invalid: {error}{hint}") from None
    if is_given:
        return Settings(**given, is_embedded=False)
    embedded_ones = _embedded_settings(data_dir())
    if not given["signing_keys"]:
        embedded_ones["signing_keys_file"] = str(_embedded_key_file(given["signing_keys_file"]))
    return Settings(**{**given, **embedded_ones}, is_embedded=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupSettings:
    """The settings of a machine that only takes backups. It has BACKUP_KEY_FILE, TENANT_SECRET or both, and may have
    ACCEPTED_DRIFT_FILE.
    """

    backup_database_url: str = field(repr=False)
    backup_key_file: str
    tenant_secret: str = field(repr=False)
    accepted_drift_file: str


def read_backup_settings() -> BackupSettings | None:
    """The settings of such a machine: BACKUP_DATABASE_URL is set, and DATABASE_URL is not. Else None. Starts no server.
    Raises ConfigurationError.
    """
    if os.environ.get("DATABASE_URL") or not os.environ.get("BACKUP_DATABASE_URL"):
        return None
    env = Env(eager=False)
    secret = validate.Length(min=32, error="must have 32 characters or more")
    key_file = env.str("BACKUP_KEY_FILE", "", validate=_is_backup_key_file)
    # Without a key file the bundles are signed with a key that is made of the secret.
    required = {"default": ""} if key_file else {}
    found = BackupSettings(
        backup_database_url=env.str("BACKUP_DATABASE_URL", validate=_is_database_url),
        backup_key_file=key_file,
        tenant_secret=env.str("TENANT_SECRET", validate=None if key_file else secret, **required),
        accepted_drift_file=env.str("ACCEPTED_DRIFT_FILE", "", validate=_is_accepted_drift_file),
    )
    try:
        env.seal()
    except EnvValidationError as error:
        raise ConfigurationError(f"These settings are invalid: {error}") from None
    return found


def _request_settings(env: Env) -> dict[str, Any]:
    """How many requests run and wait at once in this process, and for how long."""
    positive = validate.Range(min=1, error="must be 1 or more")
    seconds = validate.Range(min=0, min_inclusive=False, max=86_400, error="must be more than 0 and at most 86400")
    running = env.int("REQUEST_CONCURRENCY", DEFAULT_CONCURRENCY, validate=positive)
    return {
        "request_concurrency": running,
        "request_queue": env.int("REQUEST_QUEUE", 96, validate=validate.Range(min=0, error="must be 0 or more")),
        "queue_seconds": env.float(
            "QUEUE_SECONDS", 5.0, validate=validate.Range(0, 86_400, error="must be 0 to 86400")
        ),
        "request_seconds": env.float("REQUEST_SECONDS", 30.0, validate=seconds),
        "stream_seconds": env.float("STREAM_SECONDS", 600.0, validate=seconds),
        "event_retention_days": env.int(
            "EVENT_RETENTION_DAYS", 30, validate=validate.Range(min=1, max=36_500, error="must be 1 to 36500")
        ),
        "event_streams": env.int(
            "EVENT_STREAMS", 16, validate=validate.Range(min=0, max=10_000, error="must be 0 to 10000")
        ),
        "tenant_concurrency": env.int("TENANT_CONCURRENCY", max(1, (running or 1) // 2), validate=positive),
    }


def _observation_settings(env: Env) -> dict[str, Any]:
    """The log, the metrics and the traces."""
    port = validate.Range(min=0, max=65_535, error="must be 0 to 65535")
    token = validate.Regexp(_UNSPACED, re.ASCII, error="must have 16 characters or more, of ASCII and without spaces")
    return {
        "log_level": env.str("LOG_LEVEL", "info", validate=validate.OneOf(["debug", "info", "warning", "error"])),
        "metrics_port": env.int("METRICS_PORT", 0, validate=port),
        "metrics_token": env.str("METRICS_TOKEN", "", validate=token) or "",
        "otel": env.bool("OTEL", False),
    }


def _attempt_limits(env: Env, rate: validate.Regexp) -> dict[str, str]:
    """NIST SP 800-63B allows 100 failed log-ins of an account in a row."""
    return {
        "login_rate_limit": env.str("LOGIN_RATE_LIMIT", "30/minute", validate=rate) or "",
        "login_failure_limit": env.str("LOGIN_FAILURE_LIMIT", "20/hour", validate=rate) or "",
        "account_failure_limit": env.str("ACCOUNT_FAILURE_LIMIT", "100/day", validate=rate) or "",
        "refresh_rate_limit": env.str("REFRESH_RATE_LIMIT", "30/minute", validate=rate) or "",
    }


def _are_origins(given: list[str]) -> None:
    wrong = [each for each in given if not re.fullmatch(_ORIGIN, each, re.ASCII)]
    if wrong:
        raise ValidationError(f"must be origins like https://app.example, in lower case: {', '.join(wrong)}")


def _are_networks(given: list[str]) -> None:
    try:
        for each in given:
            ip_network(each)
    except ValueError as error:
        raise ValidationError(f"must be networks like 10.0.0.0/8,fd00::/8: {error}") from None


def _signing_keys(env: Env, is_given: bool) -> dict[str, str]:
    """Exactly one of the two settings, or none with the embedded server."""
    text = env.str("SIGNING_KEYS", "", validate=_are_signing_keys)
    needs_file = is_given and not os.environ.get("SIGNING_KEYS")
    file = env.str("SIGNING_KEYS_FILE", validate=_is_key_file, **({} if needs_file else {"default": ""}))
    return {"signing_keys": text or "", "signing_keys_file": file or ""}


def _are_signing_keys(text: str) -> None:
    try:
        if text:
            parse_keys(text)
    except ValueError as error:
        raise ValidationError(str(error)) from None


def _is_key_file(path: str) -> None:
    if os.environ.get("SIGNING_KEYS"):
        raise ValidationError("SIGNING_KEYS is set too; set only one of them")
    try:
        parse_keys(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ValidationError(f"can't be used: {error}") from None


def _is_accepted_drift_file(path: str) -> None:
    try:
        if path:
            read_accepted_drift(Path(path))
    except AcceptedDriftRefused as error:
        raise ValidationError(str(error)) from None


def _is_backup_key_file(path: str) -> None:
    try:
        if path:
            read_key_file(Path(path))
    except KeyRefused as error:
        raise ValidationError(str(error)) from None


def _embedded_key_file(given: str) -> Path:
    path = Path(given) if given else embedded_key_file()
    ensure_key_file(path)
    return path


def embedded_key_file() -> Path:
    """The default file of the signing keys in an embedded installation."""
    return data_dir() / "signing_keys.json"


def _oidc_settings(env: Env) -> dict[str, Any]:
    """An issuer requires an audience; otherwise tokens that the issuer made for other services would be accepted."""
    issuer = env.str("OIDC_ISSUER", "", validate=validate.Regexp(_ISSUER, error="must be like https://id.example"))
    known = validate.ContainsOnly(OIDC_ALGORITHMS, error=f"must be some of {', '.join(OIDC_ALGORITHMS)}")
    given = validate.Length(min=1, error="must not be empty")
    return {
        "oidc_issuer": issuer,
        "oidc_audience": env.str("OIDC_AUDIENCE", **({"validate": given} if issuer else {"default": ""})),
        "oidc_algorithms": tuple(env.list("OIDC_ALGORITHMS", ["RS256", "ES256"], validate=[known, given]) or ()),
    }


def _account_settings(env: Env) -> dict[str, Any]:
    """Mails of accounts, the lifetimes of their tokens, the rates of what sends them, and the second factor."""
    smtp_url = env.str("SMTP_URL", "", validate=_is_smtp_url)
    sender = validate.Regexp(_ADDRESS, re.ASCII, error="must be an address, like wallet@mail.example")
    lifetime = validate.Range(min=60, max=2**31 - 1, error="must be 60 to 2147483647")
    rate = validate.Regexp(rf"^{RATE}\Z", re.ASCII, error=RATE_WANTED)
    return {
        "smtp_url": smtp_url or "",
        "mail_from": env.str("MAIL_FROM", validate=sender, **({} if smtp_url else {"default": "wallet@localhost"})),
        "mail_folder": env.str("MAIL_FOLDER", ""),
        "mail_seconds": env.float("MAIL_SECONDS", 2.0, validate=validate.Range(0, 86_400, error="must be 0 to 86400")),
        "account_pages_url": env.str(
            "ACCOUNT_PAGES_URL",
            "",
            validate=validate.Regexp(_PAGE, error="must be like https://wallet.example/account"),
        ),
        "invitation_seconds": env.int("INVITATION_SECONDS", 7 * 86_400, validate=lifetime),
        "reset_seconds": env.int("RESET_SECONDS", 3_600, validate=lifetime),
        "email_change_seconds": env.int("EMAIL_CHANGE_SECONDS", 3_600, validate=lifetime),
        "mail_rate_limit": env.str("MAIL_RATE_LIMIT", "5/hour", validate=rate),
        "account_mail_limit": env.str("ACCOUNT_MAIL_LIMIT", "20/hour", validate=rate),
        "account_rate_limit": env.str("ACCOUNT_RATE_LIMIT", "60/hour", validate=rate),
        "invitation_rate_limit": env.str("INVITATION_RATE_LIMIT", "200/hour", validate=rate),
        "second_factor_rate_limit": env.str("SECOND_FACTOR_RATE_LIMIT", "20/hour", validate=rate),
        "second_factor_daily_limit": env.str("SECOND_FACTOR_DAILY_LIMIT", "30/day", validate=rate),
        "operator_second_factor": env.bool("OPERATOR_SECOND_FACTOR", False),
    }


def _prover_settings(env: Env) -> dict[str, Any]:
    """The prover's share of one core in percent, how often a tenant is proven, and where signed heads go."""
    percent = validate.Range(min=0, min_inclusive=False, max=100, error="must be more than 0 and at most 100")
    positive = validate.Range(min=1, error="must be 1 or more")
    return {
        "prover_budget": env.float("PROVER_BUDGET", 10.0, validate=percent),
        "prover_seconds": env.float("PROVER_SECONDS", 3600.0, validate=positive),
        "prover_heads_dir": env.str("PROVER_HEADS_DIR", ""),
        "proof_max_age_seconds": env.float("PROOF_MAX_AGE_SECONDS", 172_800.0, validate=positive),
    }


def _is_smtp_url(text: str) -> None:
    try:
        found = urlsplit(text)
        is_one = found.scheme in {"smtp", "smtp+starttls", "smtps"} and bool(found.hostname) and found.port != 0
        is_whole = not (found.path.strip("/") or found.query or found.fragment)
    except ValueError:
        is_one = is_whole = False
    if text and not (is_one and is_whole):
        raise ValidationError("must be like smtp+starttls://user:password@mail.example:587")


def _is_broker_url(text: str) -> None:
    try:
        found = urlsplit(text)
        is_one = found.scheme in BROKER_SCHEMES and bool(found.hostname) and found.port != 0
    except ValueError:
        is_one = False
    if text and not is_one:
        raise ValidationError(f"must be like amqp://user:password@host:5672, with {', '.join(BROKER_SCHEMES)}")


def _is_database_url(text: str) -> None:
    try:
        is_ours = not text or make_url(text).get_backend_name() == "postgresql"
    except ArgumentError:
        is_ours = False
    if not is_ours:
        raise ValidationError("must be like postgresql://user:password@host/database")


def data_dir() -> Path:
    """The folder of the embedded server and its secrets."""
    return Path(os.environ.get("DATA_DIR") or ROOT / ".data").resolve()


@dataclass(frozen=True, slots=True)
class EmbeddedSecrets:
    """The passwords of the service roles and the two master secrets, stored beside the embedded server."""

    tenant_secret: str
    secret_key: str
    migrator_password: str
    app_password: str


def embedded_secrets(folder: Path) -> EmbeddedSecrets:
    """Read the secrets, or create them at the first call. A crash leaves all of them or none."""
    path = folder / "secrets.json"
    if not path.exists():
        made = {name: secrets.token_urlsafe(48) for name in EmbeddedSecrets.__slots__}
        make_once(path, json.dumps(made))
    return EmbeddedSecrets(**json.loads(path.read_text()))


def embedded_server(folder: Path) -> embedded.EmbeddedServer:
    """The embedded server of this installation, started if it is not running."""
    folder.mkdir(parents=True, exist_ok=True)
    return embedded.start(folder / "postgres", settings=("max_connections=200",))


def _embedded_settings(folder: Path) -> dict[str, str]:
    server = embedded_server(folder)
    own = embedded_secrets(folder)
    return {
        "database_url": server.url("wallet_app", quote(own.app_password), DATABASE_NAME),
        "admin_database_url": server.url("wallet_migrator", quote(own.migrator_password), DATABASE_NAME),
        "relay_database_url": server.url("wallet_relay", quote(relay_password(own.tenant_secret)), DATABASE_NAME),
        "tenant_secret": own.tenant_secret,
        "secret_key": own.secret_key,
    }
