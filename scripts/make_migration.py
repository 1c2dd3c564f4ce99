"""Draft the next revision from the models: `python -m scripts.make_migration tenant "add nickname to wallets"`.

The draft compares the models with a throw-away server at the head of the history. One that squawk or a law of this
house finds unsafe is not kept: the complaints are shown with their statements, and it exits 1. Read what is kept, move
its SQL into a .sql file beside it if it is more than a line, and grant what the roles need.
"""

from pathlib import Path

import rich_click as click

import app  # noqa: F401  With it come the tables of all features.
from app.tenancy import MIGRATIONS
from app.users.models import User
from app.wallets.models import Wallet
from scripts.support.console import FAILED, stop
from scripts.support.migration_review import SquawkMissing, find_squawk, review
from scripts.support.scratch_installation import scratch_installation
from tenant_schemas.errors import RevisionRefused
from tenant_schemas.migrations.history import History
from tenant_schemas.search_path import bind_migration
from tenant_schemas.tenant import SHARED_SCHEMA


@click.command(help=__doc__)
@click.argument("history", type=click.Choice(["tenant", "shared"]))
@click.argument("message")
@click.option(
    "--keep-unsafe", is_flag=True, help="Keep an unsafe draft to rewrite it; `make check` refuses it as it is."
)
def main(history: str, message: str, *, keep_unsafe: bool) -> None:
    try:
        find_squawk()
    except SquawkMissing as error:
        stop(str(error), FAILED)
    line = History[history.upper()]
    head = MIGRATIONS.head(line)
    paths = _draft(line, message)
    complaints = _complaints(line, head)
    for complaint in complaints:
        print(complaint)
    if complaints and not keep_unsafe:
        for path in paths:
            path.unlink()
        stop("The draft is unsafe and was not kept. Change the models in steps, or see --keep-unsafe.", FAILED)
    for path in paths:
        print(path)


def _draft(history: History, message: str) -> list[Path]:
    with scratch_installation() as (engine, tenant), engine.begin() as connection:
        schema_name = tenant.schema_name if history is History.TENANT else SHARED_SCHEMA
        bind_migration(connection, schema_name)
        metadata = Wallet.metadata if history is History.TENANT else User.metadata
        return MIGRATIONS.draft(connection, history, metadata, message)


def _complaints(history: History, head: str) -> list[str]:
    try:
        steps = MIGRATIONS.steps(history, head)
    except RevisionRefused as error:
        return [str(error)]
    return [str(complaint) for complaint in review({f"revision {step.revision}": step.sql for step in steps})]


if __name__ == "__main__":
    main()
