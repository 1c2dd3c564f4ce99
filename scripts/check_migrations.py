"""Run both histories from nothing on a throw-away server and compare the result with the models. Exits 1 if they
differ: then a model was changed without a migration, or the reverse. `make check` runs it.
"""

import sys

import rich_click as click

import app  # noqa: F401  With it come the tables of all features.
from app.members.models import User
from app.wallets.models import Wallet
from scripts.console import FAILED
from scripts.scratch import scratch_installation
from tenant_schemas.migrations import differences
from tenant_schemas.tenant import SHARED_SCHEMA


@click.command(help=__doc__)
def main() -> None:
    with scratch_installation() as (engine, tenant):
        found = []
        for schema_name, metadata in ((SHARED_SCHEMA, User.metadata), (tenant.schema_name, Wallet.metadata)):
            with engine.begin() as connection:
                found += [(schema_name, difference) for difference in differences(connection, metadata, schema_name)]
    for schema_name, difference in found:
        print(f"{schema_name}: {difference}")
    print(f"Migrations and models {'differ' if found else 'agree'}.")
    sys.exit(FAILED if found else 0)


if __name__ == "__main__":
    main()
