"""Give all tenants' logins the passwords of a new TENANT_SECRET, and store its check value.

Set TENANT_SECRET to the new secret before. Everything happens in one db transaction: all passwords are new, or none. A
tenant whose role is missing is named, and stops no other.
From then on each command and each starting process with the old secret is refused. Running processes keep their open
connections and open no new ones, so restart them at once. With TENANT_LOGINS=shared, run `create_roles` next.

Secrets of webhooks are made of TENANT_SECRET too: all tenants' webhooks have new ones. Bundles that were signed with a
key of the old TENANT_SECRET can only be opened with a BACKUP_KEY_FILE that has this key.

Example:
    TENANT_SECRET=… python -m scripts.rotate_tenant_secret

Asks before, unless --yes is given. Prints the number of logins.

Exit codes: 0 all logins have the new passwords; 1 nothing was changed, or roles are missing: the error says which; 2
bad arguments or settings.
"""

import rich_click as click
import sqlalchemy as sa

from app.db import admin_engine
from scripts.support.console import FAILED, admin_url_or_exit, exit_with, settings_or_exit
from scripts.support.script import Script
from tenant_schemas.migrations.history import set_timeouts
from tenant_schemas.registry import all_tenants
from tenant_schemas.roles import driver_of, role_exists, set_tenant_login, tenant_password
from tenant_schemas.secret_checks import TENANT_SECRET, replace_secret


@click.command(cls=Script, help=__doc__)
@click.option("--yes", is_flag=True, help="Do not ask.")
def main(*, yes: bool) -> None:
    settings = settings_or_exit(checks_secret=False)
    engine = admin_engine(admin_url_or_exit(settings))
    if not yes and not click.confirm("All tenants' logins and webhooks get new secrets. Go on?", err=True):
        exit_with("Nothing was changed.", FAILED)
    with engine.begin() as connection:
        number, missing = rotate(connection, settings.tenant_secret)
    print(f"{number} logins have the passwords of the new TENANT_SECRET. Restart all processes with it.")
    if missing:
        exit_with(f"These roles do not exist, so they have no password: {', '.join(missing)}.", FAILED)


def rotate(connection: sa.Connection, secret: str) -> tuple[int, list[str]]:
    """Set the passwords and the check value within the migrator's open db transaction; returns the number of logins,
    and the roles that do not exist. Locks the check value first: a tenant that is being provisioned is either among
    those listed, or is refused.
    """
    set_timeouts(connection)
    replace_secret(driver_of(connection), TENANT_SECRET, secret)
    missing, number = [], 0
    for tenant in all_tenants(connection):
        if role_exists(connection, tenant.role_name):
            set_tenant_login(connection, tenant, tenant_password(secret, tenant.id, tenant.login_epoch))
            number += 1
        else:
            missing.append(tenant.role_name)
    return number, missing


if __name__ == "__main__":
    main()
