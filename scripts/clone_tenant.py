"""Make a masked copy of a tenant for staging: `python -m scripts.clone_tenant km staging`.

Amounts, dates and ids of wallets are as they are. People are member-1@staging.clone.invalid and so on, texts and
addresses are masked, and keys and sessions are not copied. Nobody can log in until you give somebody a password:
`flask members set-password member-1@staging.clone.invalid`.

A tenant whose audit finds anything is not cloned: the clone's chains are made anew, and would hide it. While it copies,
no other tenant can be made, restored or dropped: it adds people, and these lock `shared.users`.
"""

from dataclasses import asdict

import psycopg
import rich_click as click
from sqlalchemy.exc import SQLAlchemyError

from scripts.restore_tenant import restore_destination, stop_for
from scripts.support.console import json_option, show_json
from tenant_schemas.errors import TenancyError
from tenant_schemas.restore.clone import clone


@click.command(help=__doc__)
@click.argument("source")
@click.argument("slug")
@click.option("--name", help="The name people see. Default: the slug.")
@json_option
def main(source: str, slug: str, name: str | None, as_json: bool) -> None:
    try:
        cloned = clone(restore_destination(), source, slug, name=name)
    except (TenancyError, SQLAlchemyError, psycopg.Error) as error:
        stop_for(error)
    if as_json:
        show_json(asdict(cloned))
    else:
        tenant = cloned.tenant
        print(
            f"Tenant {tenant.slug} is a masked copy of {cloned.source}: {cloned.rows} rows and {cloned.people} people, "
            f"in schema {tenant.schema_name}."
        )


if __name__ == "__main__":
    main()
