"""Take an archived tenant back: it is served again from the next request on."""

import rich_click as click

from app.db import admin_engine
from app.tenants.audit import note_as_system
from scripts.support.console import admin_url_or_exit, refusals_exit, settings_or_exit
from tenant_schemas.lifecycle.archive import unarchive
from tenant_schemas.migrations.history import set_timeouts
from tenant_schemas.tenant import TenantStatus


@click.command(help=__doc__)
@click.argument("slug")
def main(slug: str) -> None:
    with refusals_exit(), admin_engine(admin_url_or_exit(settings_or_exit())).begin() as connection:
        set_timeouts(connection)
        before = unarchive(connection, slug)
        told = {"before": {"status": before.status}, "after": {"status": TenantStatus.ACTIVE}}
        note_as_system(connection, before, "tenant.unarchive", subject=slug, **told)
    print(f"Tenant {slug} is served again.")


if __name__ == "__main__":
    main()
