"""Drop the schemas that are no tenant's and whose time is over: what a restored tenant replaced, what a restore or a
verification that was killed left behind, and names that rest after a tenant was renamed. Each is dropped in a db
transaction of its own; a schema of a tenant never is. Exits 1 if one could not be dropped.
"""

import sys
from dataclasses import asdict

import rich_click as click
from sqlalchemy import Engine

from app.db import admin_engine
from scripts.support.console import (
    FAILED,
    admin_url_or_exit,
    json_option,
    refusals_exit,
    settings_or_exit,
    show_json,
    show_table,
)
from tenant_schemas.lifecycle.retired_schemas import drop_retired_schemas, list_retired_schemas


@click.command(help=__doc__)
@click.option("--list", "is_list", is_flag=True, help="Show them all, and drop none.")
@click.option("--now", "names", multiple=True, help="Only this one, also before its time; may be repeated.")
@json_option
@refusals_exit()
def main(is_list: bool, names: tuple[str, ...], as_json: bool) -> None:
    engine = admin_engine(admin_url_or_exit(settings_or_exit()))
    if is_list:
        _show_retired_schemas(engine, as_json=as_json)
        return
    outcomes = list(drop_retired_schemas(engine, names))
    if as_json:
        show_json([asdict(outcome) for outcome in outcomes])
    elif outcomes:
        rows = [(outcome.schema_name, outcome.error or "dropped") for outcome in outcomes]
        show_table("RetiredSchema schemas", ("schema", "outcome"), rows)
    else:
        print("No retired schema is due.")
    if any(outcome.error for outcome in outcomes):
        sys.exit(FAILED)


def _show_retired_schemas(engine: Engine, *, as_json: bool) -> None:
    with engine.connect() as connection:
        retired = list_retired_schemas(connection)
    if as_json:
        show_json([asdict(retired) for retired in retired])
        return
    rows = [(each.schema_name, each.slug, each.reason, each.since, each.drop_after, each.role_name) for each in retired]
    show_table("RetiredSchema schemas", ("schema", "tenant", "reason", "since", "drop after", "login"), rows)


if __name__ == "__main__":
    main()
