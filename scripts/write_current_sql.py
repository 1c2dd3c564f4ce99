"""Write `migrations/shared/current.sql` and `migrations/tenant/current.sql`: the schema at the head of each history,
generated from its revisions. The files are for reading: no migration runs them.

Prints the path of each file that changed. With --check it writes nothing, and prints each stale file with the command
to run.

Exit codes: 0 the files are written or, with --check, up to date; 1 a revision has a statement that can't be folded into
a file or, with --check, a file is stale; 2 bad arguments.
"""

import rich_click as click

from app.tenancy import MIGRATIONS
from scripts.support.console import FAILED, exit_with
from scripts.support.current_sql.files import COMMAND, stale_files, write_stale_files
from scripts.support.current_sql.fold import NotFolded
from scripts.support.script import Script
from tenant_schemas.errors import RevisionRefused


@click.command(cls=Script, help=__doc__)
@click.option("--check", "only_checks", is_flag=True, help="Write nothing; exit 1 if a file is stale.")
def main(*, only_checks: bool) -> None:
    try:
        stale = stale_files(MIGRATIONS) if only_checks else {}
        written = [] if only_checks else write_stale_files(MIGRATIONS)
    except (NotFolded, RevisionRefused) as error:
        exit_with(str(error), FAILED)
    for path in written:
        print(path)
    if stale:
        exit_with("\n".join(f"{path} is stale: run `{COMMAND}`." for path in stale), FAILED)


if __name__ == "__main__":
    main()
