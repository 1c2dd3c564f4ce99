"""Check the migrations: review the SQL of every revision that is not frozen, with squawk and with this project's own
rules; then run both histories from the start on a throw-away server and compare the objects with the models, and with
those that each current.sql makes.

`make check` runs this. Prints each unsafe statement with its rule, and each difference.

Exit codes: 0 the revisions are safe, and agree with the models and with current.sql; 1 a revision is unsafe, something
differs, or squawk is not installed; 2 bad arguments.
"""

import sys
from collections.abc import Iterator

import rich_click as click
import sqlalchemy as sa

import app  # noqa: F401  Importing it registers the tables of all features.
from app.tenancy import MIGRATIONS
from app.users.models import User
from app.wallets.models import Wallet
from scripts.support.console import FAILED, exit_with
from scripts.support.current_sql.files import COMMAND, current_path, stale_files
from scripts.support.current_sql.fold import NotFolded
from scripts.support.current_sql.proof import differing_objects
from scripts.support.migration_review import SquawkMissing, review_histories
from scripts.support.scratch_installation import scratch_installation
from scripts.support.script import Script
from tenant_schemas.migrations.history import History, differences
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant


@click.command(cls=Script, help=__doc__)
def main() -> None:
    try:
        violations = review_histories()
    except SquawkMissing as error:
        exit_with(str(error), FAILED)
    for violation in violations:
        print(violation)
    with scratch_installation() as (engine, tenant):
        model_differences = list(_model_differences(engine, tenant))
        current_sql_differences = list(_current_sql_differences(engine, tenant))
    for difference in [*model_differences, *current_sql_differences]:
        print(difference)
    print(f"Migrations and models {'differ' if model_differences else 'agree'}.")
    print(f"Migrations and current.sql {'differ' if current_sql_differences else 'agree'}.")
    sys.exit(FAILED if violations or model_differences or current_sql_differences else 0)


def _model_differences(engine: sa.Engine, tenant: Tenant) -> Iterator[str]:
    for schema_name, metadata in ((SHARED_SCHEMA, User.metadata), (tenant.schema_name, Wallet.metadata)):
        with engine.begin() as connection:
            for difference in differences(connection, metadata, schema_name):
                yield f"{schema_name}: {difference}"


def _current_sql_differences(engine: sa.Engine, tenant: Tenant) -> Iterator[str]:
    """Each file that is stale, and each object that a file makes differently from the revisions."""
    try:
        for path in stale_files(MIGRATIONS):
            yield f"{path} is stale: run `{COMMAND}`."
        for history in History:
            with engine.begin() as connection:
                for difference in differing_objects(connection, MIGRATIONS, history, tenant):
                    yield f"{current_path(MIGRATIONS, history)}: {difference}."
    except NotFolded as error:
        yield str(error)


if __name__ == "__main__":
    main()
