"""The settings, read once from the environment into a frozen object. All faults are listed together, and then the
process does not start.

With no DATABASE_URL everything runs on an embedded PostgreSQL under DATA_DIR, with secrets made there at first start.
"""

import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from environs import Env, EnvValidationError, ValidationError, validate
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from tenant_schemas import embedded

ROOT = Path(__file__).resolve().parent.parent
DATABASE_NAME = "wallet"
_DOMAIN = r"^([a-zA-Z0-9-]+(\.[a-zA-Z0-9-]+)*)?$"


class ConfigurationError(Exception):
    """One or more settings are wrong. The message lists them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the process was told. README explains each; the names there are these in capitals."""

    database_url: str = field(repr=False)
    admin_database_url: str = field(repr=False)
    tenant_secret: str = field(repr=False)
    secret_key: str = field(repr=False)
    is_embedded: bool
    base_domain: str
    token_seconds: int
    max_connections: int
    connection_wait_seconds: float
    statement_timeout_ms: int
    max_body_bytes: int
    hold_expiry_seconds: int
    log_level: str


def read_settings() -> Settings:
    """Read the environment. Raises ConfigurationError. Without DATABASE_URL it starts the embedded server."""
    env = Env(eager=False)
    secret = validate.Length(min=32, error="must have 32 characters or more")
    timeout = validate.Range(min=1, max=2**31 - 1, error="must be 1 to 2147483647")
    not_negative = validate.Range(min=0, error="must be 0 or more")
    day = validate.Range(min=0, max=86_400, error="must be 0 to 86400")
    positive = validate.Range(min=1, error="must be 1 or more")
    database_url = env.str("DATABASE_URL", "", validate=_is_database_url)
    is_given = bool(os.environ.get("DATABASE_URL"))
    required = {} if is_given else {"default": ""}
    given: dict[str, Any] = {
        "database_url": database_url,
        "admin_database_url": env.str("ADMIN_DATABASE_URL", "", validate=_is_database_url),
        "tenant_secret": env.str("TENANT_SECRET", validate=secret if is_given else None, **required),
        "secret_key": env.str("SECRET_KEY", validate=secret if is_given else None, **required),
        "base_domain": env.str(
            "BASE_DOMAIN", "", validate=validate.Regexp(_DOMAIN, error="must be like wallet.example")
        ),
        "token_seconds": env.int("TOKEN_SECONDS", 900, validate=positive),
        "max_connections": env.int("MAX_CONNECTIONS", 20, validate=validate.Range(min=2, error="must be 2 or more")),
        "connection_wait_seconds": env.float("CONNECTION_WAIT_SECONDS", 5.0, validate=not_negative),
        "statement_timeout_ms": env.int("STATEMENT_TIMEOUT_MS", 10_000, validate=timeout),
        "max_body_bytes": env.int("MAX_BODY_BYTES", 65_536, validate=positive),
        "hold_expiry_seconds": env.int("HOLD_EXPIRY_SECONDS", 60, validate=day),
        "log_level": env.str("LOG_LEVEL", "info", validate=validate.OneOf(["debug", "info", "warning", "error"])),
    }
    try:
        env.seal()
    except EnvValidationError as error:
        raise ConfigurationError(f"These settings are wrong: {error}") from None
    if is_given:
        return Settings(**given, is_embedded=False)
    return Settings(**{**given, **_embedded_settings(data_dir())}, is_embedded=True)


def _is_database_url(text: str) -> None:
    try:
        is_ours = not text or make_url(text).get_backend_name() == "postgresql"
    except ArgumentError:
        is_ours = False
    if not is_ours:
        raise ValidationError("must be like postgresql://user:password@host/database")


def data_dir() -> Path:
    """Where the embedded server and its secrets live."""
    return Path(os.environ.get("DATA_DIR") or ROOT / ".data").resolve()


@dataclass(frozen=True, slots=True)
class EmbeddedSecrets:
    """The passwords of the service roles and the two master secrets, kept beside the embedded server."""

    tenant_secret: str
    secret_key: str
    migrator_password: str
    app_password: str


def embedded_secrets(folder: Path) -> EmbeddedSecrets:
    """Read the secrets, or make them at the first call; a crash leaves all or none."""
    path = folder / "secrets.json"
    if not path.exists():
        made = {name: secrets.token_urlsafe(48) for name in EmbeddedSecrets.__slots__}
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.touch(mode=0o600)
        scratch.write_text(json.dumps(made))
        try:
            os.link(scratch, path)  # Fails if another process was faster; then its secrets count.
        except FileExistsError:
            pass
        finally:
            scratch.unlink()
    return EmbeddedSecrets(**json.loads(path.read_text()))


def embedded_server(folder: Path) -> embedded.EmbeddedServer:
    """The embedded server of this installation, started if it isn't running."""
    folder.mkdir(parents=True, exist_ok=True)
    return embedded.start(folder / "postgres", settings=("max_connections=200",))


def _embedded_settings(folder: Path) -> dict[str, str]:
    server = embedded_server(folder)
    own = embedded_secrets(folder)
    return {
        "database_url": server.url("wallet_app", quote(own.app_password), DATABASE_NAME),
        "admin_database_url": server.url("wallet_migrator", quote(own.migrator_password), DATABASE_NAME),
        "tenant_secret": own.tenant_secret,
        "secret_key": own.secret_key,
    }
