"""Give a tenant's login its derived password and its own schema's path again, whatever was done to them meanwhile.

With --raise-epoch the password is a new one. Nobody need stop for that: connections that are open go on, and a process
that still derives the old password asks the registry and derives the new one.
"""

import rich_click as click

from app.db import ROLES, admin_engine
from scripts.support.console import BAD_ARGUMENTS, admin_url_or_exit, refusals_exit, settings_or_exit, stop
from tenant_schemas.errors import TenantNotFound
from tenant_schemas.registry import get_tenant, increment_login_epoch
from tenant_schemas.roles import become_owner, set_tenant_login, stop_being_owner, tenant_password


@click.command(help=__doc__)
@click.argument("slug")
@click.option("--raise-epoch", "is_raised", is_flag=True, help="Derive a new password; the old one opens nothing more.")
@refusals_exit()
def main(slug: str, is_raised: bool) -> None:
    settings = settings_or_exit()
    with admin_engine(admin_url_or_exit(settings)).begin() as connection:
        try:
            tenant = get_tenant(connection, slug)
            if is_raised:
                become_owner(connection, ROLES)
                tenant = increment_login_epoch(connection, tenant.id)
                stop_being_owner(connection)
        except TenantNotFound as error:
            stop(str(error), BAD_ARGUMENTS)
        password = tenant_password(settings.tenant_secret, tenant.id, tenant.login_epoch)
        set_tenant_login(connection, tenant, password)
    print(f"{tenant.role_name} logs in to {tenant.schema_name} again, with password {tenant.login_epoch}.")


if __name__ == "__main__":
    main()
