"""Draft the next revision from the models: `python -m scripts.make_migration tenant "add nickname to wallets"`.

The draft compares the models with a throw-away server at the head of the history. Read it, move its SQL into a .sql
file beside it if it is more than a line, and grant what the roles need.
"""

import rich_click as click

import app  # noqa: F401  With it come the tables of all features.
from app.members.models import User
from app.tenancy import MIGRATIONS
from app.wallets.models import Wallet
from scripts.scratch import scratch_installation
from tenant_schemas.migrations import History
from tenant_schemas.search_path import bind_migration
from tenant_schemas.tenant import SHARED_SCHEMA


@click.command(help=__doc__)
@click.argument("history", type=click.Choice(["tenant", "shared"]))
@click.argument("message")
def main(history: str, message: str) -> None:
    with scratch_installation() as (engine, tenant), engine.begin() as connection:
        schema_name = tenant.schema_name if history == "tenant" else SHARED_SCHEMA
        bind_migration(connection, schema_name)
        metadata = Wallet.metadata if history == "tenant" else User.metadata
        for path in MIGRATIONS.draft(connection, History[history.upper()], metadata, message):
            print(path)


if __name__ == "__main__":
    main()
