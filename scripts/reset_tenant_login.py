"""Reset the login role of a tenant: its password to the derived one, and its search_path to the tenant's schema.

Use it if the role was changed by hand. With --raise-epoch the role gets a new password. The service need not be
restarted: open connections stay open, and a process that has the old password reads the new epoch from the registry.

Example:
    python -m scripts.reset_tenant_login km

Exit codes: 0 the login is reset; 1 the database refused a statement or can't be reached; 2 bad arguments, or there is
no tenant SLUG. With 1 and 2 nothing has changed.
"""

import rich_click as click

from app.db import ROLES, admin_engine
from scripts.support.console import BAD_ARGUMENTS, admin_url_or_exit, exit_with, settings_or_exit
from scripts.support.script import Script
from tenant_schemas.errors import TenantNotFound
from tenant_schemas.registry import get_tenant, increment_login_epoch
from tenant_schemas.roles import become_owner, driver_of, set_tenant_login, stop_being_owner, tenant_password
from tenant_schemas.secret_checks import check_tenant_secret


@click.command(cls=Script, help=__doc__)
@click.argument("slug")
@click.option(
    "--raise-epoch",
    "is_raised",
    is_flag=True,
    help="Set a new password, that of the next epoch; the old one is no longer accepted.",
)
def main(slug: str, is_raised: bool) -> None:
    settings = settings_or_exit()
    with admin_engine(admin_url_or_exit(settings)).begin() as connection:
        check_tenant_secret(driver_of(connection), settings.tenant_secret, lock=True)
        try:
            tenant = get_tenant(connection, slug)
            if is_raised:
                become_owner(connection, ROLES)
                tenant = increment_login_epoch(connection, tenant.id)
                stop_being_owner(connection)
        except TenantNotFound as error:
            exit_with(str(error), BAD_ARGUMENTS)
        password = tenant_password(settings.tenant_secret, tenant.id, tenant.login_epoch)
        set_tenant_login(connection, tenant, password)
    print(f"Role {tenant.role_name} is reset: schema {tenant.schema_name}, password of epoch {tenant.login_epoch}.")


if __name__ == "__main__":
    main()
