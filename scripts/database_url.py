"""Print the connection URL of one login, with its password. Keep it out of logs.

Examples:
    psql "$(python -m scripts.database_url --tenant eur)"
    psql "$(python -m scripts.database_url --as migrator)"

Exit codes: 0 the URL is printed; 1 the registry can't be read; 2 bad arguments, or there is no such tenant.
"""

from urllib.parse import quote

import rich_click as click
import sqlalchemy as sa

from app.config import Settings, data_dir, embedded_server
from app.db import admin_engine
from scripts.support.console import BAD_ARGUMENTS, admin_url_or_exit, exit_with, settings_or_exit
from scripts.support.script import Script
from tenant_schemas.errors import TenantNotFound
from tenant_schemas.registry import get_tenant
from tenant_schemas.roles import tenant_password


@click.command(cls=Script, help=__doc__)
@click.option("--tenant", "slug", help="Slug of a tenant: its own login.")
@click.option("--as", "login", type=click.Choice(["app", "migrator", "superuser"]), help="A login of the service.")
def main(slug: str | None, login: str | None) -> None:
    print(database_url(slug, login))


def database_url(slug: str | None, login: str | None) -> str:
    """The URL of a tenant's login, or of a login of the service. Exits 2 for bad arguments."""
    if bool(slug) == bool(login):
        exit_with("Give either --tenant SLUG, or --as app, migrator or superuser.", BAD_ARGUMENTS)
    settings = settings_or_exit()
    return _tenant_url(settings, slug) if slug else _service_url(settings, str(login))


def _tenant_url(settings: Settings, slug: str) -> str:
    with admin_engine(admin_url_or_exit(settings)).connect() as connection:
        try:
            tenant = get_tenant(connection, slug)
        except TenantNotFound as error:
            exit_with(str(error), BAD_ARGUMENTS)
    password = tenant_password(settings.tenant_secret, tenant.id, tenant.login_epoch)
    url = sa.make_url(settings.database_url).set(username=tenant.role_name, password=quote(password))
    return url.render_as_string(hide_password=False)


def _service_url(settings: Settings, login: str) -> str:
    if login == "app":
        return settings.database_url
    if login == "migrator":
        return admin_url_or_exit(settings)
    if not settings.is_embedded:
        exit_with(
            "Only the embedded server's superuser has a known password: use your own URL on this server.", BAD_ARGUMENTS
        )
    database = sa.make_url(settings.database_url).database
    return embedded_server(data_dir()).superuser_url(str(database))


if __name__ == "__main__":
    main()
