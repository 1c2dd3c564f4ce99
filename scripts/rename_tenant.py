"""Rename a tenant: its slug and its login role, with --schema-name also its schema, and with --name its display name.
All or nothing. NEW_SLUG may be SLUG itself.

Access tokens and memberships stay valid, and the service goes on. While the schema is renamed, requests of this tenant
may fail; clients can repeat them with the same Idempotency-Key. The old schema name stays reserved for one day, by an
empty retired schema, before another tenant can have it (`drop_retired_schemas`).

Example:
    python -m scripts.rename_tenant gbp pounds --schema-name pounds_schema

Prints the new slug, schema and login role.

Exit codes: 0 the tenant is renamed; 1 it could not be renamed, for example because a name is taken or its tables are in
use; 2 bad arguments, or there is no tenant SLUG. With 1 and 2 nothing has changed.
"""

import rich_click as click

from app.db import ROLES, admin_engine
from app.tenancy import RESERVED_SLUGS
from app.tenants.audit import add_system_entry
from scripts.support.console import (
    admin_url_or_exit,
    json_option,
    settings_or_exit,
    show_json,
)
from scripts.support.script import Script
from tenant_schemas.lifecycle.rename import rename
from tenant_schemas.migrations.history import set_timeouts
from tenant_schemas.registry import get_tenant
from tenant_schemas.tenant import Tenant


@click.command(cls=Script, help=__doc__)
@click.argument("slug")
@click.argument("new_slug")
@click.option("--schema-name", help="New name of its schema. Default: unchanged.")
@click.option("--name", help="New display name. Default: unchanged.")
@json_option
def main(*, slug: str, new_slug: str, schema_name: str | None, name: str | None, as_json: bool) -> None:
    tenant = _rename(slug, new_slug, schema_name, name)
    if as_json:
        show_json(tenant)
    else:
        print(f"Tenant {slug} is now {tenant.slug}: schema {tenant.schema_name}, login {tenant.role_name}.")


def _rename(slug: str, new_slug: str, schema_name: str | None, name: str | None) -> Tenant:
    with admin_engine(admin_url_or_exit(settings_or_exit())).begin() as connection:
        set_timeouts(connection)
        before = get_tenant(connection, slug)
        after = rename(
            connection, ROLES, slug, new_slug, schema_name=schema_name, name=name, reserved_slugs=RESERVED_SLUGS
        )
        change = {"before": _names(before), "after": _names(after)}
        add_system_entry(connection, after, "tenant.rename", subject=after.slug, **change)
    return after


def _names(tenant: Tenant) -> dict[str, str]:
    return {"slug": tenant.slug, "schemaName": tenant.schema_name, "name": tenant.name}


if __name__ == "__main__":
    main()
