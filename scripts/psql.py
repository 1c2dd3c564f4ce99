"""Run psql as a tenant's own login, or as a login of the service.

All other arguments are passed on to psql. The psql of the PATH is used or, if there is none, the embedded server's.

Examples:
    python -m scripts.psql --tenant eur -c 'TABLE wallets'
    python -m scripts.psql --as migrator

Exit codes: psql's own; 2 also for bad arguments of this command.
"""

import os
import shutil
import subprocess
import sys

import rich_click as click
import sqlalchemy as sa

from scripts.database_url import database_url
from scripts.support.script import Script
from tenant_schemas import embedded


@click.command(cls=Script, help=__doc__, context_settings={"ignore_unknown_options": True})
@click.option("--tenant", "slug", help="Slug of a tenant: its own login.")
@click.option("--as", "login", type=click.Choice(["app", "migrator", "superuser"]), help="A login of the service.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(slug: str | None, login: str | None, arguments: tuple[str, ...]) -> None:
    program = shutil.which("psql") or str(embedded.binary("psql"))
    variables = os.environ | _connection_variables(database_url(slug, login))
    done = subprocess.run([program, *arguments], env=variables, check=False)
    sys.exit(done.returncode)


def _connection_variables(url: str) -> dict[str, str]:
    """libpq's environment variables. On the command line every user of the machine could read the password."""
    parts = sa.make_url(url)
    variables = {
        "PGHOST": parts.host,
        "PGPORT": parts.port,
        "PGUSER": parts.username,
        "PGPASSWORD": parts.password,
        "PGDATABASE": parts.database,
    }
    return {name: str(value) for name, value in variables.items() if value is not None}


if __name__ == "__main__":
    main()
