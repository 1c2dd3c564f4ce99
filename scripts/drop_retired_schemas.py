"""Drop the retired schemas that are due.

A retired schema belongs to no tenant: a restore replaced it, a killed restore or verification left it behind, or it
keeps the old name of a renamed tenant from being used again too soon. Each is dropped in its own db transaction. The
schema of a registered tenant is never dropped.

Examples:
    python -m scripts.drop_retired_schemas --list
    python -m scripts.drop_retired_schemas

Prints each schema and whether it was dropped. --list prints revision, tables, rows (as last estimated) and size of
each: one with a revision can be kept by `backup_retired_schema`, and put back by `restore_tenant --from-retired`.

Exit codes: 0 all were dropped, or none was due; 1 a schema could not be dropped: the table says why; 2 bad arguments.
"""

import sys

import rich_click as click
from sqlalchemy import Engine

from app.db import admin_engine
from scripts.support.console import (
    FAILED,
    admin_url_or_exit,
    json_option,
    settings_or_exit,
    show_json,
    show_table,
    spelled,
)
from scripts.support.script import Script
from tenant_schemas.lifecycle.retired_contents import contents_of
from tenant_schemas.lifecycle.retired_schemas import drop_retired_schemas, list_retired_schemas


@click.command(cls=Script, help=__doc__)
@click.option("--list", "is_list", is_flag=True, help="List all retired schemas and when each is due; drop none.")
@click.option(
    "--now",
    "names",
    metavar="SCHEMA",
    multiple=True,
    help="Drop only this retired schema, even if it is not due; may be repeated.",
)
@json_option
def main(is_list: bool, names: tuple[str, ...], as_json: bool) -> None:
    engine = admin_engine(admin_url_or_exit(settings_or_exit()))
    if is_list:
        _show_retired_schemas(engine, as_json=as_json)
        return
    outcomes = list(drop_retired_schemas(engine, names))
    if as_json:
        show_json(outcomes)
    elif outcomes:
        rows = [(outcome.schema_name, outcome.error or "dropped") for outcome in outcomes]
        show_table("Retired schemas", ("schema", "outcome"), rows)
    else:
        print("No retired schema is due.")
    if any(outcome.error for outcome in outcomes):
        sys.exit(FAILED)


def _show_retired_schemas(engine: Engine, *, as_json: bool) -> None:
    with engine.connect() as connection:
        schemas = [(each, contents_of(connection, each)) for each in list_retired_schemas(connection)]
    if as_json:
        show_json([spelled(each) | spelled(contents) for each, contents in schemas])
        return
    rows = [
        (
            *(each.schema_name, each.slug, each.reason, each.since, each.drop_after, each.role_name),
            *(contents.revision, contents.tables, contents.rows, contents.bytes, contents.problem),
        )
        for each, contents in schemas
    ]
    columns = (
        *("schema", "tenant", "reason", "since", "drop after", "login"),
        *("revision", "tables", "rows", "bytes", "problem"),
    )
    show_table("Retired schemas", columns, rows)


if __name__ == "__main__":
    main()
