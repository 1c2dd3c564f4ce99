"""Read the SQL of the revisions that are not frozen, by squawk's rules and by the laws of this house; run both
histories from nothing on a throw-away server and compare the result with the models. `make check` runs it.

Exits 1 if a revision is unsafe, or if a model was changed without a migration, or the reverse.
"""

import sys

import rich_click as click

import app  # noqa: F401  With it come the tables of all features.
from app.users.models import User
from app.wallets.models import Wallet
from scripts.support.console import FAILED, stop
from scripts.support.migration_review import SquawkMissing, review_histories
from scripts.support.scratch_installation import scratch_installation
from tenant_schemas.migrations.history import differences
from tenant_schemas.tenant import SHARED_SCHEMA


@click.command(help=__doc__)
def main() -> None:
    try:
        complaints = review_histories()
    except SquawkMissing as error:
        stop(str(error), FAILED)
    for complaint in complaints:
        print(complaint)
    with scratch_installation() as (engine, tenant):
        found = []
        for schema_name, metadata in ((SHARED_SCHEMA, User.metadata), (tenant.schema_name, Wallet.metadata)):
            with engine.begin() as connection:
                found += [(schema_name, difference) for difference in differences(connection, metadata, schema_name)]
    for schema_name, difference in found:
        print(f"{schema_name}: {difference}")
    print(f"Migrations and models {'differ' if found else 'agree'}.")
    sys.exit(FAILED if found or complaints else 0)


if __name__ == "__main__":
    main()
