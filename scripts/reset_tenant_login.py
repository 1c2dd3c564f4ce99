"""Give a tenant's login its derived password and its own schema's path again, whatever was done to them meanwhile."""

import rich_click as click

from app.db import admin_engine
from scripts.console import BAD_ARGUMENTS, admin_url_or_exit, settings_or_exit, stop
from tenant_schemas.errors import TenantNotFound
from tenant_schemas.registry import get_tenant
from tenant_schemas.roles import set_tenant_login, tenant_password


@click.command(help=__doc__)
@click.argument("slug")
def main(slug: str) -> None:
    settings = settings_or_exit()
    with admin_engine(admin_url_or_exit(settings)).begin() as connection:
        try:
            tenant = get_tenant(connection, slug)
        except TenantNotFound as error:
            stop(str(error), BAD_ARGUMENTS)
        password = tenant_password(settings.tenant_secret, tenant.id, tenant.login_epoch)
        set_tenant_login(connection, tenant, password)
    print(f"{tenant.role_name} logs in to {tenant.schema_name} again.")


if __name__ == "__main__":
    main()
