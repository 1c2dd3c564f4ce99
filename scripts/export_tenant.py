"""Export one tenant's data as CSV, for the tenant to take away.

Makes a folder in the folder --to with one CSV file for each table (the first line has the column names), one for the
members, one for the users they refer to, and a manifest. It contains no data of other tenants, no password and no
login.

Text that a spreadsheet would run as a formula gets an apostrophe. With --raw every text is unchanged: PostgreSQL reads
these files back exactly (COPY … FROM … CSV HEADER). Do not open them in a spreadsheet.

Example:
    python -m scripts.export_tenant km --to /exports

Prints the number of rows and tables, and the folder.

Exit codes: 0 the export is complete; 1 it failed and left no files; 2 bad arguments, or there is no tenant SLUG.
"""

from pathlib import Path

import rich_click as click

from scripts.backup_tenant import backup_source
from scripts.support.console import BAD_ARGUMENTS, FAILED, exit_with, json_option, show_json
from scripts.support.script import Script
from tenant_schemas.backup.export import export_tenant
from tenant_schemas.errors import BackupError, TenantNotFound


@click.command(cls=Script, help=__doc__)
@click.argument("slug")
@click.option(
    "--to", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for exports."
)
@click.option("--raw", "is_raw", is_flag=True, help="Leave formulas in texts as they are, to import the files exactly.")
@json_option
def main(slug: str, folder: Path, *, is_raw: bool, as_json: bool) -> None:
    try:
        export = export_tenant(backup_source(), slug, folder, is_raw=is_raw)
    except TenantNotFound as error:
        exit_with(str(error), BAD_ARGUMENTS)
    except BackupError as error:
        exit_with(str(error), FAILED)
    rows = {table.name: table.rows for table in export.tables}
    if as_json:
        show_json({"slug": slug, "folder": export.folder, "rows": rows})
    else:
        print(f"{slug}: {sum(rows.values())} rows of {len(rows)} tables in {export.folder}")


if __name__ == "__main__":
    main()
