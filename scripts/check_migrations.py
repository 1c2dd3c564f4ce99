"""Read the SQL of the revisions that are not frozen, by squawk's rules and by the laws of this house; run both
histories from nothing on a throw-away server and compare the result with the models, and with what current.sql makes.
`make check` runs it.

Exits 1 if a revision is unsafe, if a model was changed without a migration, or the reverse, or if a current.sql is
stale or makes other objects than the revisions.
"""

import sys
from collections.abc import Iterator

import rich_click as click
import sqlalchemy as sa

import app  # noqa: F401  With it come the tables of all features.
from app.tenancy import MIGRATIONS
from app.users.models import User
from app.wallets.models import Wallet
from scripts.support.console import FAILED, stop
from scripts.support.current_sql.files import COMMAND, current_path, stale_files
from scripts.support.current_sql.fold import NotFolded
from scripts.support.current_sql.proof import differing_objects
from scripts.support.migration_review import SquawkMissing, review_histories
from scripts.support.scratch_installation import scratch_installation
from tenant_schemas.migrations.history import History, differences
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant


@click.command(help=__doc__)
def main() -> None:
    try:
        complaints = review_histories()
    except SquawkMissing as error:
        stop(str(error), FAILED)
    for complaint in complaints:
        print(complaint)
    with scratch_installation() as (engine, tenant):
        unlike_models = list(_unlike_models(engine, tenant))
        unlike_current_sql = list(_unlike_current_sql(engine, tenant))
    for difference in [*unlike_models, *unlike_current_sql]:
        print(difference)
    print(f"Migrations and models {'differ' if unlike_models else 'agree'}.")
    print(f"Migrations and current.sql {'differ' if unlike_current_sql else 'agree'}.")
    sys.exit(FAILED if complaints or unlike_models or unlike_current_sql else 0)


def _unlike_models(engine: sa.Engine, tenant: Tenant) -> Iterator[str]:
    for schema_name, metadata in ((SHARED_SCHEMA, User.metadata), (tenant.schema_name, Wallet.metadata)):
        with engine.begin() as connection:
            for difference in differences(connection, metadata, schema_name):
                yield f"{schema_name}: {difference}"


def _unlike_current_sql(engine: sa.Engine, tenant: Tenant) -> Iterator[str]:
    """Whether each file has its text, and whether the text makes what the revisions make."""
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
