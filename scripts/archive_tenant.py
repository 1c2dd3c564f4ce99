"""Archive a tenant: from its next request on, the service answers its auditors only, and they can only read.

No data is deleted. `unarchive_tenant` makes the tenant active again, `drop_tenant` deletes it.

Example:
    python -m scripts.archive_tenant km

Exit codes: 0 the tenant is archived; 1 it could not be archived, or is archived already; 2 bad arguments, or there is
no tenant SLUG. With 1 and 2 nothing has changed.
"""

import sys

import rich_click as click
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.db import admin_engine
from app.tenants.audit import add_system_entry
from scripts.support.console import admin_url_or_exit, settings_or_exit
from scripts.support.script import Script
from tenant_schemas.lifecycle.archive import archive
from tenant_schemas.migrations.history import first_line, set_timeouts
from tenant_schemas.tenant import Tenant, TenantStatus


@click.command(cls=Script, help=__doc__)
@click.argument("slug")
def main(slug: str) -> None:
    with admin_engine(admin_url_or_exit(settings_or_exit())).begin() as connection:
        set_timeouts(connection)
        before = archive(connection, slug)
        _write_audit_entry(connection, before)
    print(f"Tenant {slug} is archived.")


def _write_audit_entry(connection: Connection, before: Tenant) -> None:
    """Only warns if the audit log can't be written: a broken tenant can be archived too."""
    change = {"before": {"status": before.status}, "after": {"status": TenantStatus.ARCHIVED}}
    try:
        with connection.begin_nested():
            add_system_entry(connection, before, "tenant.archive", subject=before.slug, **change)
    except DBAPIError as error:
        warning = f"Warning: the audit log of tenant {before.slug} has no entry for this, it can't be written"
        print(f"{warning}: {first_line(error)}", file=sys.stderr)


if __name__ == "__main__":
    main()
