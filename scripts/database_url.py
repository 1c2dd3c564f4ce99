"""Print the URL with which psql logs in: `psql "$(python -m scripts.database_url --tenant eur)"`.

It contains the password; keep it out of logs.
"""

from urllib.parse import quote

import rich_click as click
import sqlalchemy as sa

from app.config import Settings, data_dir, embedded_server
from app.db import admin_engine
from scripts.support.console import BAD_ARGUMENTS, admin_url_or_exit, refusals_exit, settings_or_exit, stop
from tenant_schemas.errors import TenantNotFound
from tenant_schemas.registry import get_tenant
from tenant_schemas.roles import tenant_password


@click.command(help=__doc__)
@click.option("--tenant", "slug", help="The tenant's own login.")
@click.option("--as", "who", type=click.Choice(["app", "migrator", "superuser"]), help="A login of the service.")
@refusals_exit()
def main(slug: str | None, who: str | None) -> None:
    print(database_url(slug, who))


def database_url(slug: str | None, who: str | None) -> str:
    """The URL of one login: a tenant's, or one of the service's."""
    if bool(slug) == bool(who):
        stop("Say --tenant SLUG or --as app, migrator or superuser.", BAD_ARGUMENTS)
    settings = settings_or_exit()
    return _tenant_url(settings, slug) if slug else _service_url(settings, str(who))


def _tenant_url(settings: Settings, slug: str) -> str:
    with admin_engine(admin_url_or_exit(settings)).connect() as connection:
        try:
            tenant = get_tenant(connection, slug)
        except TenantNotFound as error:
            stop(str(error), BAD_ARGUMENTS)
    password = tenant_password(settings.tenant_secret, tenant.id, tenant.login_epoch)
    url = sa.make_url(settings.database_url).set(username=tenant.role_name, password=quote(password))
    return url.render_as_string(hide_password=False)


def _service_url(settings: Settings, who: str) -> str:
    if who == "app":
        return settings.database_url
    if who == "migrator":
        return admin_url_or_exit(settings)
    if not settings.is_embedded:
        stop("Only the embedded server's superuser is known here.", BAD_ARGUMENTS)
    database = sa.make_url(settings.database_url).database
    return embedded_server(data_dir()).superuser_url(str(database))


if __name__ == "__main__":
    main()
