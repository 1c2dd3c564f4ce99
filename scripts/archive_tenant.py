"""Put a tenant away: from the next request on nobody is served there but auditors, who may still read. Nothing of it
is lost, and `unarchive_tenant` takes it back.
"""

import sys

import rich_click as click
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.db import admin_engine
from app.tenants.audit import note_as_system
from scripts.support.console import admin_url_or_exit, refusals_exit, settings_or_exit
from tenant_schemas.lifecycle.archive import archive
from tenant_schemas.migrations.history import first_line, set_timeouts
from tenant_schemas.tenant import Tenant, TenantStatus


@click.command(help=__doc__)
@click.argument("slug")
def main(slug: str) -> None:
    with refusals_exit(), admin_engine(admin_url_or_exit(settings_or_exit())).begin() as connection:
        set_timeouts(connection)
        before = archive(connection, slug)
        _note(connection, before)
    print(f"Tenant {slug} is archived.")


def _note(connection: Connection, before: Tenant) -> None:
    """A tenant in trouble can be put away even if its log can't be written."""
    told = {"before": {"status": before.status}, "after": {"status": TenantStatus.ARCHIVED}}
    try:
        with connection.begin_nested():
            note_as_system(connection, before, "tenant.archive", subject=before.slug, **told)
    except DBAPIError as error:
        print(f"It is not in the tenant's audit log, which can't be written: {first_line(error)}", file=sys.stderr)


if __name__ == "__main__":
    main()
