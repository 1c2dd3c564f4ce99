"""Check the migrations: review the SQL of every revision that is not frozen, with squawk and with this project's own
rules; then run both histories from the start on a throw-away server and compare the tables with the models.

`make check` runs this. Prints each unsafe statement with its rule, and each difference.

Exit codes: 0 the revisions are safe and agree with the models; 1 a revision is unsafe, models and migrations differ, or
squawk is not installed; 2 bad arguments.
"""

import sys

import rich_click as click

import app  # noqa: F401  Importing it registers the tables of all features.
from app.users.models import User
from app.wallets.models import Wallet
from scripts.support.console import FAILED, exit_with
from scripts.support.migration_review import SquawkMissing, review_histories
from scripts.support.scratch_installation import scratch_installation
from tenant_schemas.migrations.history import differences
from tenant_schemas.tenant import SHARED_SCHEMA


@click.command(help=__doc__)
def main() -> None:
    try:
        complaints = review_histories()
    except SquawkMissing as error:
        exit_with(str(error), FAILED)
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
