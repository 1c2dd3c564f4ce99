"""Verify bundles: load each one into a temporary schema, recompute everything in its manifest, and migrate it to the
head, as a restore would.

A bundle of the schema shared is loaded into tables with the constraints of those of today, and the db transaction is
rolled back.

The schema belongs to no tenant and is dropped afterwards. Creating and dropping it locks `shared.users` for a moment:
on a busy installation, verify on another server. If another session's lock prevents the drop, a warning says so, and
`drop_retired_schemas` drops the schema later.

Examples:
    python -m scripts.verify_backup /backups --latest km --latest shared
    python -m scripts.verify_backup /backups/km-20260101T000000Z

A bundle that no key of this installation signed is not valid. With --accept-foreign it is loaded all the same, and the
line says that nothing proves it.

Prints one line for each bundle: tenant, revision, number of files, rows and tables. On standard error it names what a
restore would leave out, because the migrations do not make it.

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
from app.backup_policy import bundle_keys
from scripts.restore_tenant import (
    accept_foreign_option,
    checked_bundle,
    error_text,
    identity_option,
    restore_destination,
)
from scripts.support.console import BAD_ARGUMENTS, FAILED, exit_with, json_option, settings_or_exit, show_json, warn
from scripts.support.script import Script
from tenant_schemas.backup.encryption import read_identities
from tenant_schemas.backup.shared_bundle import is_of_shared, open_shared_bundle
from tenant_schemas.backup.signature import Origin
from tenant_schemas.backup.staging import newest_folder
from tenant_schemas.errors import KeyRefused, TenancyError
from tenant_schemas.restore.restore import Destination
from tenant_schemas.restore.shared_verify import verify_shared
from tenant_schemas.restore.verify import verify


@click.command(cls=Script, help=__doc__)
@click.argument(
    "folders",
    metavar="BUNDLE…",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
)
@click.option(
    "--latest",
    "slugs",
    multiple=True,
    metavar="SLUG",
    help="Each BUNDLE is a folder of bundles: verify the newest of this tenant, or of `shared`; may be repeated.",
)
@identity_option
@accept_foreign_option
@json_option
def main(
    *, folders: tuple[Path, ...], slugs: tuple[str, ...], identity: Path | None, accept_foreign: bool, as_json: bool
) -> None:
    _check_identity(identity)
    destination = restore_destination()
    reports = []
    for folder in [newest_folder(parent, slug) for parent in folders for slug in slugs] if slugs else folders:
        reports.append(_verify(destination, folder, identity, accept_foreign=accept_foreign))
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


def _verify(destination: Destination, folder: Path, identity: Path | None, *, accept_foreign: bool) -> dict[str, Any]:
    report: dict[str, Any] = {"bundle": folder, "error": None}
    try:
        if is_of_shared(folder):
            opened = open_shared_bundle(folder, bundle_keys(settings_or_exit()), identity)
            return report | {"origin": opened.origin} | asdict(verify_shared(destination, opened))
        bundle = checked_bundle(folder, identity, accept_foreign=accept_foreign)
        return report | asdict(verify(destination, bundle))
    except (TenancyError, SQLAlchemyError, psycopg.Error) as error:
        return report | {"error": error_text(error)}


def _show(report: dict[str, Any]) -> None:
    bundle = report["bundle"]
    if report["error"]:
        warn(f"{bundle}: {report['error']}")
        return
    if is_of_shared(bundle):
        _show_shared(report)
        return
    is_ours = report["origin"] is Origin.OWN
    verdict = "valid" if is_ours else f"{report['origin']} and can be loaded, which proves nothing about its origin"
    uncompared = " The schema's definition was not compared: it is of another PostgreSQL version or a retired schema."
    head = report["migrated_to"]
    migrated = "" if head == report["revision"] else f" (a restore migrates it to {head})"
    print(
        f"{bundle} is {verdict}: tenant {report['slug']} at revision {report['revision']}{migrated}, "
        f"{report['files']} files, "
        f"{report['rows']} rows in {report['tables']} tables; counts, hashes, totals, chains and audit agree."
        f"{uncompared if report['same_form'] is None else ''}"
    )
    if report["same_form"] is False and not report["left_out"]:
        warn(f"{bundle}: the schema was not as revision {report['revision']} makes it, but its rows can be restored.")
    for each in report["left_out"]:
        warn(f"{bundle}: a restore leaves out: {each}")
    for warning in report["warnings"]:
        warn(f"{bundle}: {warning}")


def _show_shared(report: dict[str, Any]) -> None:
    print(
        f"{report['bundle']} is valid: schema shared at revision {report['revision']}, {report['tenants']} tenants, "
        f"{report['rows']} rows in {report['tables']} tables; counts, hashes and constraints agree."
    )
    for name in report["left_out"]:
        warn(f"{report['bundle']}: a restore leaves out what the migrations do not make: {name}")


if __name__ == "__main__":
    main()
