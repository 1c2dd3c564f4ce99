"""Back up a retired schema: the data of a tenant that a restore replaced, before the schema is dropped.

The bundle is like those of `backup_tenant`, with the members that the tenant has today: `verify_backup` verifies it,
and `restore_tenant` restores it. Its name ends with the time of the data, and no --keep of `backup_tenant` counts or
deletes it. `restore_tenant --from-retired` puts the data back without such a bundle.

Example:
    python -m scripts.drop_retired_schemas --list
    python -m scripts.backup_retired_schema km_schema --to /backups

Prints the number of rows and the bundle's folder.

Exit codes: 0 the bundle is complete; 1 there is none: the error says why; 2 bad arguments.
"""

from pathlib import Path

import rich_click as click

from scripts.backup_tenant import backup_source, seal_to_option
from scripts.support.console import json_option, show_json
from scripts.support.script import Script
from tenant_schemas.backup.encryption import read_recipients
from tenant_schemas.backup.retired import back_up_retired
from tenant_schemas.backup.writer import BackupOptions


@click.command(cls=Script, help=__doc__)
@click.argument("schema_name", metavar="SCHEMA")
@click.option(
    "--to", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the bundle."
)
@seal_to_option
@json_option
def main(*, schema_name: str, folder: Path, sealed_for: tuple[str, ...], as_json: bool) -> None:
    read_recipients(sealed_for)
    bundle = back_up_retired(backup_source(), schema_name, BackupOptions(folder=folder, sealed_for=sealed_for))
    rows = sum(file.rows for file in bundle.manifest.tables)
    if as_json:
        show_json({"slug": bundle.manifest.tenant.slug, "bundle": bundle.folder, "rows": rows})
    else:
        print(f"{schema_name}: {rows} rows, data of {bundle.manifest.data}, in {bundle.folder}")


if __name__ == "__main__":
    main()
