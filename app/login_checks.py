"""The doctor's findings about the secrets of the settings and about logins that can't log in."""

from collections.abc import Iterable, Iterator
from typing import Final

import psycopg
import sqlalchemy as sa

from app.config import Settings
from app.db import ROLES
from app.secret_checks import plain_url, secrets_of, tenant_url
from tenant_schemas.doctor.finding import Finding, error
from tenant_schemas.migrations.history import first_line
from tenant_schemas.roles import driver_of, pool_password
from tenant_schemas.secret_checks import TENANT_SECRET, wrong_secrets
from tenant_schemas.tenant import Tenant

_CONNECT_SECONDS: Final = 5
_SET_RIGHT: Final = {
    TENANT_SECRET: "Set the right one. To change it: `python -m scripts.rotate_tenant_secret`.",
    "SECRET_KEY": "Set the right one: it encrypts the second factors. To accept a new one: "
    "DELETE FROM shared.secret_checks WHERE name = 'SECRET_KEY'; and run `python -m scripts.migrate`.",
}
_CREATE_ROLES: Final = "Run `python -m scripts.create_roles` with the right URLs."


def secret_findings(connection: sa.Connection, settings: Settings) -> Iterator[Finding]:
    """Secrets that differ from their check values."""
    for name in wrong_secrets(driver_of(connection), secrets_of(settings)):
        what = "it is not the secret of this installation: its check value in shared.secret_checks differs"
        yield error("secret", f"setting {name}", what, _SET_RIGHT[name])


def login_findings(tenants: Iterable[Tenant], settings: Settings) -> Iterator[Finding]:
    """Log in as each role of the service and of the tenants, one after another."""
    urls = {
        "DATABASE_URL": settings.database_url,
        "ADMIN_DATABASE_URL": settings.admin_database_url,
        "BACKUP_DATABASE_URL": settings.backup_database_url,
        "RELAY_DATABASE_URL": settings.relay_database_url,
    }
    for name, url in urls.items():
        if url and (failure := _failure(plain_url(url))):
            yield error("login", f"setting {name}", f"its login is refused: {failure}", _CREATE_ROLES)
    # Not through DATABASE_URL: that may be a PgBouncer, and each tenant's login would take a connection of its pools.
    direct = sa.make_url(settings.admin_database_url or settings.database_url)
    if settings.tenant_logins == "shared":
        pool = direct.set(username=ROLES.pool, password=pool_password(settings.tenant_secret))
        if failure := _failure(plain_url(pool)):
            yield error("login", f"role {ROLES.pool}", f"its login is refused: {failure}", _CREATE_ROLES)
        return
    for tenant in tenants:
        if failure := _failure(tenant_url(direct, settings.tenant_secret, tenant)):
            remedy = f"Run `python -m scripts.repair_tenant {tenant.slug}`."
            yield error("login", f"role {tenant.role_name}", f"its login is refused: {failure}", remedy)


def _failure(url: str) -> str | None:
    try:
        psycopg.connect(url, connect_timeout=_CONNECT_SECONDS).close()
    except psycopg.OperationalError as refused:
        return first_line(refused)
    return None
