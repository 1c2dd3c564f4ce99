"""Show at which revision `shared` and every tenant are, and the head they should be at. Exits 1 if one is behind."""

import sys

import rich_click as click

from app.db import admin_engine
from app.tenancy import MIGRATIONS
from scripts.console import FAILED, admin_url_or_exit, json_option, settings_or_exit, show_json, show_table
from tenant_schemas.migrations import History, current_revision
from tenant_schemas.registry import all_tenants
from tenant_schemas.tenant import SHARED_SCHEMA


@click.command(help=__doc__)
@json_option
def main(as_json: bool) -> None:
    shared_head, tenant_head = MIGRATIONS.head(History.SHARED), MIGRATIONS.head(History.TENANT)
    with admin_engine(admin_url_or_exit(settings_or_exit())).connect() as connection:
        at = current_revision(connection, SHARED_SCHEMA)
        tenants = all_tenants(connection) if at else []
    rows = [(SHARED_SCHEMA, "-", at or "-", shared_head)]
    rows += [(tenant.schema_name, tenant.status.value, tenant.revision, tenant_head) for tenant in tenants]
    columns = ("schema", "status", "revision", "head")
    if as_json:
        show_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        show_table("Revisions", columns, rows)
    if any(revision != head for _, _, revision, head in rows):
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
