"""Write `migrations/shared/current.sql` and `migrations/tenant/current.sql` from the revisions, and print the path of
each file that changed. Each file shows what its history makes at the head. It is there to read: no migration runs it.

Exits 1 if a revision has a statement that can't be folded into the file. With --check it writes nothing, and exits 1 if
a file is stale: it then prints which file, and the command to run.
"""

import rich_click as click

from app.tenancy import MIGRATIONS
from scripts.support.console import FAILED, stop
from scripts.support.current_sql.files import COMMAND, stale_files, write_stale_files
from scripts.support.current_sql.fold import NotFolded
from tenant_schemas.errors import RevisionRefused


@click.command(help=__doc__)
@click.option("--check", "only_checks", is_flag=True, help="Write nothing; exit 1 if a file is stale.")
def main(*, only_checks: bool) -> None:
    try:
        stale = stale_files(MIGRATIONS) if only_checks else {}
        written = [] if only_checks else write_stale_files(MIGRATIONS)
    except (NotFolded, RevisionRefused) as error:
        stop(str(error), FAILED)
    for path in written:
        print(path)
    if stale:
        stop("\n".join(f"{path} is stale: run `{COMMAND}`." for path in stale), FAILED)


if __name__ == "__main__":
    main()
