"""Prove that bundles can be restored: load each into a schema that nobody gets, and recompute its whole manifest. Exits
1 if anything differs, and names the file or table.

It makes and drops a schema, which locks `shared.users` for a moment: on a busy installation, do it on another server.
Where the schema can't be dropped, since somebody else reads there all the while, a warning says so; it is due from then
on, and `drop_retired_schemas` drops it.
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg
import rich_click as click
from sqlalchemy.exc import SQLAlchemyError

from scripts.restore_tenant import identity_option, restore_destination, told_of
from scripts.support.console import BAD_ARGUMENTS, FAILED, json_option, show_json, stop
from tenant_schemas.backup.bundle import open_bundle
from tenant_schemas.backup.encryption import read_identities
from tenant_schemas.errors import AgeKeyRefused, TenancyError
from tenant_schemas.restore.restore import Destination
from tenant_schemas.restore.verify import verify


@click.command(help=__doc__)
@click.argument(
    "folders",
    metavar="BUNDLE…",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
)
@identity_option
@json_option
def main(folders: tuple[Path, ...], identity: Path | None, as_json: bool) -> None:
    _refuse_no_identity(identity)
    destination = restore_destination()
    told = []
    for folder in folders:
        told.append(_verified(destination, folder, identity))
        if not as_json:
            _show(told[-1])
    if as_json:
        show_json(told)
    sys.exit(FAILED if any(each["error"] for each in told) else 0)


def _refuse_no_identity(identity: Path | None) -> None:
    try:
        if identity:
            read_identities(identity)
    except AgeKeyRefused as error:
        stop(str(error), BAD_ARGUMENTS)


def _verified(destination: Destination, folder: Path, identity: Path | None) -> dict[str, Any]:
    told: dict[str, Any] = {"bundle": folder, "error": None}
    try:
        return told | asdict(verify(destination, open_bundle(folder, identity)))
    except (TenancyError, SQLAlchemyError, psycopg.Error) as error:
        return told | {"error": told_of(error)}


def _show(told: dict[str, Any]) -> None:
    if told["error"]:
        print(f"{told['bundle']}: {told['error']}", file=sys.stderr)
        return
    form = "" if told["same_form"] is not None else " Its form was not compared: another PostgreSQL has other words."
    print(
        f"{told['bundle']} holds: {told['slug']} at revision {told['revision']}, {told['files']} files, {told['rows']} "
        f"rows in {told['tables']} tables, by count, hash, totals, chains and audit.{form}"
    )
    for warning in told["warnings"]:
        print(f"{told['bundle']}: {warning}", file=sys.stderr)


if __name__ == "__main__":
    main()
