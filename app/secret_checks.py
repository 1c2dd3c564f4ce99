"""Compares the secrets of the settings with their check values before a process or a command does anything."""

from collections.abc import Sequence
from functools import partial
from itertools import takewhile
from typing import Final

import psycopg
import sqlalchemy as sa

from app.config import Settings
from tenant_schemas.errors import SecretRefused
from tenant_schemas.registry import all_tenants
from tenant_schemas.roles import driver_of, tenant_password
from tenant_schemas.secret_checks import (
    TENANT_SECRET,
    check_tenant_secret,
    missing_checks,
    record_secrets,
)
from tenant_schemas.tenant import Tenant

_CONNECT_SECONDS: Final = 3
_TENANTS_TRIED: Final = 5


def secrets_of(settings: Settings) -> dict[str, str]:
    """The secrets that have check values, by the names of their settings."""
    return {TENANT_SECRET: settings.tenant_secret, "SECRET_KEY": settings.secret_key}


def refuse_wrong_secret(settings: Settings) -> None:
    """Raises SecretRefused if TENANT_SECRET is not that of the installation. A server that can't be reached is no
    fault here: what follows reports it, and without the server no secret does harm.
    """
    url = settings.admin_database_url or settings.backup_database_url or settings.database_url
    refuse_wrong_secret_at(url, settings.tenant_secret)


def refuse_wrong_secret_at(url: str, secret: str) -> None:
    """The same for the installation of this URL."""
    try:
        with psycopg.connect(plain_url(url), connect_timeout=_CONNECT_SECONDS, autocommit=True) as connection:
            check_tenant_secret(connection, secret)
    except psycopg.Error:
        return


def record_first_secrets(engine: sa.Engine, settings: Settings) -> None:
    """Store the check values that are missing, as the migrator; commits. Raises SecretRefused if the logins of several
    tenants refuse the passwords that TENANT_SECRET gives, and none takes one: then none is stored.
    """
    secrets = secrets_of(settings)
    with engine.begin() as connection:
        missing = missing_checks(driver_of(connection), secrets)
        if TENANT_SECRET in missing:
            _prove(engine, settings, all_tenants(connection)[:_TENANTS_TRIED])
        record_secrets(driver_of(connection), {name: secrets[name] for name in missing})


def _prove(engine: sa.Engine, settings: Settings, tenants: Sequence[Tenant]) -> None:
    """Log in as one of the tenants. A login may have changed its own password, so one refusal proves nothing."""
    rejected = [tenant.slug for tenant in takewhile(partial(_is_rejected, engine, settings), tenants)]
    if tenants and len(rejected) == len(tenants):
        raise SecretRefused(
            f"TENANT_SECRET is not the secret of this installation: with the passwords that it gives, none of these "
            f"tenants can log in: {', '.join(rejected)}. No check value was stored. Set the right one, or run "
            "`python -m scripts.rotate_tenant_secret`."
        )


def _is_rejected(engine: sa.Engine, settings: Settings, tenant: Tenant) -> bool:
    """Whether the tenant's login rejects its password. Any other failure proves nothing."""
    url = tenant_url(engine.url, settings.tenant_secret, tenant)
    try:
        psycopg.connect(url, connect_timeout=_CONNECT_SECONDS).close()
    except psycopg.OperationalError as error:
        return error.pgconn is not None and error.pgconn.used_password
    return False


def tenant_url(url: sa.URL, secret: str, tenant: Tenant) -> str:
    """The URL of the tenant's login on the server of another login."""
    password = tenant_password(secret, tenant.id, tenant.login_epoch)
    return plain_url(url.set(username=tenant.role_name, password=password))


def plain_url(url: str | sa.URL) -> str:
    return sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
