"""One tenant's data for it to take away: `python -m scripts.export_tenant km --to DIR` makes a folder of plain CSV with
headers, and a manifest. It has nothing of other tenants, no password and no login.
"""

from pathlib import Path

import rich_click as click

from scripts.backup_tenant import backup_source
from scripts.support.console import BAD_ARGUMENTS, FAILED, json_option, show_json, stop
from tenant_schemas.backup.export import export_tenant
from tenant_schemas.errors import BackupError, TenantNotFound


@click.command(help=__doc__)
@click.argument("slug")
@click.option("--to", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), help="Where to.")
@json_option
def main(slug: str, folder: Path, *, as_json: bool) -> None:
    try:
        export = export_tenant(backup_source(), slug, folder)
    except TenantNotFound as error:
        stop(str(error), BAD_ARGUMENTS)
    except BackupError as error:
        stop(str(error), FAILED)
    rows = {table.name: table.rows for table in export.tables}
    if as_json:
        show_json({"slug": slug, "folder": export.folder, "rows": rows})
    else:
        print(f"{slug}: {sum(rows.values())} rows of {len(rows)} tables in {export.folder}")


if __name__ == "__main__":
    main()
