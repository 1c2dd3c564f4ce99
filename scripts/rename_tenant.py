"""Give a tenant another slug, and so its login another name; with --schema-name its schema too, and with --name what
people call it. All or nothing. Tokens and members go on, and so does the service.

While a schema's name changes, requests under way for that tenant may fail; they can be sent again with the same
Idempotency-Key. Its old name rests for a day, taken by an empty schema, before another tenant may have it
(`drop_retired_schemas`).
"""

from dataclasses import asdict

import rich_click as click

from app.db import ROLES, admin_engine
from app.tenancy import RESERVED_SLUGS
from app.tenants.audit import note_as_system
from app.tenants.schemas import NAME_MAX_LENGTH
from scripts.support.console import (
    BAD_ARGUMENTS,
    admin_url_or_exit,
    json_option,
    refusals_exit,
    settings_or_exit,
    show_json,
    stop,
)
from tenant_schemas.lifecycle.rename import rename
from tenant_schemas.migrations.history import set_timeouts
from tenant_schemas.registry import get_tenant
from tenant_schemas.tenant import Tenant


@click.command(help=__doc__)
@click.argument("slug")
@click.argument("new_slug")
@click.option("--schema-name", help="Another name for its schema. Default: it stays.")
@click.option("--name", help="Another name for people to see. Default: it stays.")
@json_option
def main(*, slug: str, new_slug: str, schema_name: str | None, name: str | None, as_json: bool) -> None:
    if name is not None and not (0 < len(name) <= NAME_MAX_LENGTH and name.isprintable()):
        stop(f"A name has 1 to {NAME_MAX_LENGTH} characters that can be printed.", BAD_ARGUMENTS)
    with refusals_exit():
        tenant = _rename(slug, new_slug, schema_name, name)
    if as_json:
        show_json(asdict(tenant))
    else:
        print(f"Tenant {slug} is {tenant.slug} now: schema {tenant.schema_name}, login {tenant.role_name}.")


def _rename(slug: str, new_slug: str, schema_name: str | None, name: str | None) -> Tenant:
    with admin_engine(admin_url_or_exit(settings_or_exit())).begin() as connection:
        set_timeouts(connection)
        before = get_tenant(connection, slug)
        after = rename(
            connection, ROLES, slug, new_slug, schema_name=schema_name, name=name, reserved_slugs=RESERVED_SLUGS
        )
        told = {"before": _called(before), "after": _called(after)}
        note_as_system(connection, after, "tenant.rename", subject=after.slug, **told)
    return after


def _called(tenant: Tenant) -> dict[str, str]:
    return {"slug": tenant.slug, "schemaName": tenant.schema_name, "name": tenant.name}


if __name__ == "__main__":
    main()
