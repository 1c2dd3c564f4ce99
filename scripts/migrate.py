"""Bring `shared` and then every tenant to the head of its history.

Each schema is migrated in a db transaction of its own. One that fails is reported and stays as it was; the others go
on. Exits 1 if any failed.
"""

from collections.abc import Iterator

import rich_click as click
import sqlalchemy as sa
from rich.progress import track

from app.db import admin_engine
from app.tenancy import MIGRATIONS
from scripts.console import BAD_ARGUMENTS, admin_url_or_exit, json_option, settings_or_exit, show_outcomes, stop
from tenant_schemas.errors import TenantNotFound
from tenant_schemas.migrations import Outcome


@click.command(help=__doc__)
@click.option("--tenant", "slugs", multiple=True, help="After shared, only this tenant; may be repeated.")
@json_option
def main(slugs: tuple[str, ...], as_json: bool) -> None:
    engine = admin_engine(admin_url_or_exit(settings_or_exit()))
    try:
        steps = migrate(engine, slugs)
        outcomes = list(steps if as_json else track(steps, "Migrating", transient=True))
    except TenantNotFound as error:
        stop(str(error), BAD_ARGUMENTS)
    show_outcomes(outcomes, as_json=as_json)


def migrate(engine: sa.Engine, slugs: tuple[str, ...] = ()) -> Iterator[Outcome]:
    """`shared` first: without it, no tenant is touched."""
    shared = MIGRATIONS.migrate_shared(engine)
    yield shared
    if not shared.has_failed:
        yield from MIGRATIONS.migrate_tenants(engine, slugs)


if __name__ == "__main__":
    main()
