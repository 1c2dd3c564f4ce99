"""Copy a tenant to a new tenant for staging, with personal data masked.

Wallet ids, amounts and dates stay as they are. Users are copied as member-1@SLUG.clone.invalid, member-2@… without a
password; descriptions, references, client addresses and the like are masked; sessions and API keys are not copied. A
user of the copy needs a password to log in: `flask members set-password member-1@staging.clone.invalid`.

The tenant SOURCE is audited first, and is not copied if the audit has findings: the hash chains of the copy are
computed anew and would hide them. While the command runs, no other tenant can be provisioned, restored or dropped: it
adds users, which locks `shared.users`.

Example:
    python -m scripts.clone_tenant km staging

Prints the number of copied rows and users, and the new schema.

Exit codes: 0 the new tenant is ready; 1 it could not be made, for example because there is no tenant SOURCE or SLUG is
taken; 2 bad arguments. With 1 and 2 no part of it is left, or the error says what to remove.
"""

import psycopg
import rich_click as click
from sqlalchemy.exc import SQLAlchemyError

from scripts.restore_tenant import exit_with_error, restore_destination
from scripts.support.console import json_option, show_json
from scripts.support.script import Script
from tenant_schemas.errors import TenancyError
from tenant_schemas.restore.clone import clone


@click.command(cls=Script, help=__doc__)
@click.argument("source")
@click.argument("slug")
@click.option("--name", help="Display name of the new tenant. Default: SLUG.")
@json_option
def main(source: str, slug: str, name: str | None, as_json: bool) -> None:
    try:
        cloned = clone(restore_destination(), source, slug, name=name)
    except (TenancyError, SQLAlchemyError, psycopg.Error) as error:
        exit_with_error(error)
    if as_json:
        show_json(cloned)
    else:
        tenant = cloned.tenant
        print(
            f"Tenant {tenant.slug} is a masked copy of {cloned.source}: {cloned.rows} rows and {cloned.people} users, "
            f"in schema {tenant.schema_name}."
        )


if __name__ == "__main__":
    main()
