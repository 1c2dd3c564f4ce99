"""psql as a tenant's own login or as one of the service's: `python -m scripts.psql --tenant eur -c 'TABLE wallets'`.

What follows the login goes to psql as it is. Without a psql on the PATH it is the embedded server's own.
"""

import os
import shutil
import subprocess
import sys

import rich_click as click
import sqlalchemy as sa

from scripts.database_url import database_url
from tenant_schemas import embedded


@click.command(help=__doc__, context_settings={"ignore_unknown_options": True})
@click.option("--tenant", "slug", help="The tenant's own login.")
@click.option("--as", "who", type=click.Choice(["app", "migrator", "superuser"]), help="A login of the service.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(slug: str | None, who: str | None, arguments: tuple[str, ...]) -> None:
    program = shutil.which("psql") or str(embedded.binary("psql"))
    done = subprocess.run([program, *arguments], env=os.environ | _login(database_url(slug, who)), check=False)
    sys.exit(done.returncode)


def _login(url: str) -> dict[str, str]:
    """For the environment rather than the command line, where every user of the machine could read the password."""
    parts = sa.make_url(url)
    login = {
        "PGHOST": parts.host,
        "PGPORT": parts.port,
        "PGUSER": parts.username,
        "PGPASSWORD": parts.password,
        "PGDATABASE": parts.database,
    }
    return {name: str(value) for name, value in login.items() if value is not None}


if __name__ == "__main__":
    main()
