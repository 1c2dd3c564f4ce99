"""Verify bundles: load each one into a temporary schema and recompute everything in its manifest.

The schema belongs to no tenant and is dropped afterwards. Creating and dropping it locks `shared.users` for a moment:
on a busy installation, verify on another server. If another session's lock prevents the drop, a warning says so, and
`drop_retired_schemas` drops the schema later.

Example:
    python -m scripts.verify_backup /backups/km-*

Prints one line for each bundle: tenant, revision, number of files, rows and tables.

Exit codes: 0 every bundle is valid; 1 a bundle is not, or could not be loaded: the error names the file or the table; 2
bad arguments.
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg
import rich_click as click
from sqlalchemy.exc import SQLAlchemyError

from app.api.spelling import camel_case
from scripts.restore_tenant import error_text, identity_option, restore_destination
from scripts.support.console import BAD_ARGUMENTS, FAILED, exit_with, json_option, show_json
from tenant_schemas.backup.bundle import open_bundle
from tenant_schemas.backup.encryption import read_identities
from tenant_schemas.errors import KeyRefused, TenancyError
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
    _check_identity(identity)
    destination = restore_destination()
    reports = []
    for folder in folders:
        reports.append(_verify(destination, folder, identity))
        if not as_json:
            _show(reports[-1])
    if as_json:
        show_json([{camel_case(name): value for name, value in report.items()} for report in reports])
    sys.exit(FAILED if any(report["error"] for report in reports) else 0)


def _check_identity(identity: Path | None) -> None:
    """Exits 2 if the file has no valid identity."""
    try:
        if identity:
            read_identities(identity)
    except KeyRefused as error:
        exit_with(str(error), BAD_ARGUMENTS)


def _verify(destination: Destination, folder: Path, identity: Path | None) -> dict[str, Any]:
    report: dict[str, Any] = {"bundle": folder, "error": None}
    try:
        return report | asdict(verify(destination, open_bundle(folder, identity)))
    except (TenancyError, SQLAlchemyError, psycopg.Error) as error:
        return report | {"error": error_text(error)}


def _show(report: dict[str, Any]) -> None:
    bundle = report["bundle"]
    if report["error"]:
        print(f"{bundle}: {report['error']}", file=sys.stderr)
        return
    uncompared = " The schema's definition was not compared: the bundle is from another PostgreSQL version."
    print(
        f"{bundle} is valid: tenant {report['slug']} at revision {report['revision']}, {report['files']} files, "
        f"{report['rows']} rows in {report['tables']} tables; counts, hashes, totals, chains and audit agree."
        f"{uncompared if report['same_form'] is None else ''}"
    )
    for warning in report["warnings"]:
        print(f"{bundle}: {warning}", file=sys.stderr)


if __name__ == "__main__":
    main()
