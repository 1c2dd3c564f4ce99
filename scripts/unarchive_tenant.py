"""Make an archived tenant active again: the service answers all its members from its next request on.

Example:
    python -m scripts.unarchive_tenant km

Exit codes: 0 the tenant is active; 1 it could not be made active, or is not archived; 2 bad arguments, or there is no
tenant SLUG. With 1 and 2 nothing has changed.
"""

import rich_click as click

from app.db import admin_engine
from app.tenants.audit import add_system_entry
from scripts.support.console import admin_url_or_exit, settings_or_exit
from scripts.support.script import Script
from tenant_schemas.lifecycle.archive import unarchive
from tenant_schemas.migrations.history import set_timeouts
from tenant_schemas.tenant import TenantStatus


@click.command(cls=Script, help=__doc__)
@click.argument("slug")
def main(slug: str) -> None:
    with admin_engine(admin_url_or_exit(settings_or_exit())).begin() as connection:
        set_timeouts(connection)
        before = unarchive(connection, slug)
        change = {"before": {"status": before.status}, "after": {"status": TenantStatus.ACTIVE}}
        add_system_entry(connection, before, "tenant.unarchive", subject=slug, **change)
    print(f"Tenant {slug} is active again.")


if __name__ == "__main__":
    main()
