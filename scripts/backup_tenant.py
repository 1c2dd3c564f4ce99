"""Back up one tenant, or all tenants and the schema shared, while the service goes on.

A bundle is a new folder SLUG-TIME in the folder --to, readable by its owner only. It contains all rows of the tenant's
tables, the tenant's rows of the shared schema, and a manifest with the counts, hashes and totals that verify them,
signed with the first key of BACKUP_KEY_FILE or, without that file, with one made of TENANT_SECRET. An incomplete bundle
never gets this name, and an existing bundle is never overwritten.

--all also writes a bundle shared-TIME, and --shared only that: the users with the hashes of their passwords and their
second factors, the members, API keys, catalogue, registry and records of runs. It is always encrypted: for the
recipients of --seal-to or, without any, for the key that signs it. `restore_installation` needs it.

The data is read from the server of BACKUP_DATABASE_URL or, if that is not set, of ADMIN_DATABASE_URL. On a machine that
only takes backups set BACKUP_DATABASE_URL, and BACKUP_KEY_FILE (or TENANT_SECRET), and no other setting.

Examples:
    python -m scripts.backup_tenant km --to /backups
    python -m scripts.backup_tenant --all --to /backups --keep 14 --jobs 2
    python -m scripts.backup_tenant --all --to /backups --keep 30d --dry-run

A tenant whose schema differs from the migrations is backed up, and the objects that differ are named with their effect,
except those in ACCEPTED_DRIFT_FILE. Only if a restore may refuse the tenant's rows (another column, a missing
constraint) it is not, unless --with-dump is given.

A tenant that can't be read is tried again after the others, and then named with the cause: for a locked table with the
session that holds the lock.

Prints for each tenant the number of rows and bytes, the server they were read from, the bundle's folder, and the old
bundles that --keep deleted. --keep counts only bundles that are intact and that a restore can load, names those that it
does not count, and neither counts nor deletes bundles that this installation did not sign. With --dry-run it deletes
nothing, and nothing is backed up.

Exit codes: 0 each tenant has its new bundle; 1 a tenant has none, or old bundles could not be deleted: the errors on
standard error name the tenants; 2 bad arguments, or there is no tenant SLUG.
"""

import re
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import rich_click as click

from app.backup_policy import BACKUP_POLICY, accepted_drift, bundle_keys
from app.config import BackupSettings, Settings
from app.tenancy import MIGRATIONS
from scripts.support.console import (
    BAD_ARGUMENTS,
    FAILED,
    admin_url_or_exit,
    backup_settings_or_exit,
    exit_with,
    json_option,
    show_json,
    warn,
)
from scripts.support.script import Script
from scripts.support.shared_backup import outdated_shared_report, shared_report
from tenant_schemas.backup.backup import back_up
from tenant_schemas.backup.backup_all import BackupOutcome, back_up_all
from tenant_schemas.backup.encryption import read_recipients
from tenant_schemas.backup.introspection import find_registry_row, list_registry_rows
from tenant_schemas.backup.retention import Keep, find_outdated, keep_newest, unsigned_bundles
from tenant_schemas.backup.signature import BundleKeys
from tenant_schemas.backup.source import LOCK_TIMEOUT_MS, Source, translate_errors
from tenant_schemas.backup.writer import BackupOptions
from tenant_schemas.errors import BackupError, KeyRefused, TenancyError, TenantNotFound
from tenant_schemas.schema_diff.accepted import AcceptedDrift
from tenant_schemas.schema_diff.effects import told
from tenant_schemas.tenant import Tenant

_OBJECTS_AT_MOST = 20

# Stands for all tenants in an outcome whose error kept the run from reading the registry.
_REGISTRY: Final = "all"

with_dump_option = click.option(
    "--with-dump",
    is_flag=True,
    help="Add pg_dump's file of the schema to the bundle. A tenant whose rows a restore may refuse needs it.",
)
seal_to_option = click.option(
    "--seal-to",
    "sealed_for",
    multiple=True,
    help="Encrypt the bundle for this recipient, an age public key (age1…); may be repeated.",
)


class KeepType(click.ParamType[Keep]):
    """A number of bundles, or a number of days followed by `d`."""

    name = "NUMBER|DAYSd"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Keep:
        found = re.fullmatch(r"([1-9][0-9]{0,4})(d?)", str(value))
        if found is None:
            self.fail(f"{value!r} is neither a number of bundles (14) nor of days (14d).", param, ctx)
        number, is_days = int(found[1]), bool(found[2])
        return Keep(age=timedelta(days=number)) if is_days else Keep(number)


@click.command(cls=Script, help=__doc__)
@click.argument("slug", required=False)
@click.option(
    "--all",
    "is_all",
    is_flag=True,
    help="Back up every tenant, of any status, as of one moment, and the schema shared.",
)
@click.option("--shared", "is_shared", is_flag=True, help="Back up the schema shared, and no tenant.")
@click.option(
    "--to", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for bundles."
)
@click.option(
    "--keep",
    type=KeepType(),
    help="Keep this number of bundles that can be restored for each tenant, the new one included, or those of this "
    "number of days (14d) and at least one; delete older ones.",
)
@click.option("--dry-run", "is_dry", is_flag=True, help="With --keep: show what it would delete; back up nothing.")
@with_dump_option
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Connections that read at once: the tables of one large tenant or, with --all, several tenants.",
)
@seal_to_option
@click.option(
    "--lock-timeout",
    "lock_timeout_ms",
    type=click.IntRange(1, 3_600_000),
    default=LOCK_TIMEOUT_MS,
    show_default=True,
    help="Longest wait for the lock of one tenant's table, in milliseconds. A migration of the tenant may hold it.",
)
@json_option
def main(
    *,
    slug: str | None,
    is_all: bool,
    is_shared: bool,
    folder: Path,
    keep: Keep | None,
    is_dry: bool,
    with_dump: bool,
    jobs: int,
    sealed_for: tuple[str, ...],
    lock_timeout_ms: int,
    as_json: bool,
) -> None:
    if is_all + is_shared + bool(slug) != 1:
        exit_with("Give the SLUG of one tenant, --all, or --shared.", BAD_ARGUMENTS)
    if is_dry and keep is None:
        exit_with("--dry-run shows what --keep would delete: give --keep too.", BAD_ARGUMENTS)
    try:
        read_recipients(sealed_for)
    except KeyRefused as error:
        exit_with(str(error), BAD_ARGUMENTS)
    options = BackupOptions(folder=folder, jobs=jobs, with_dump=with_dump, sealed_for=sealed_for)
    settings, reports = backup_settings_or_exit(), []
    source = replace(_source_of(settings), lock_timeout_ms=lock_timeout_ms)
    if is_dry and keep:
        made = _outdated(source, slug, folder, keep, is_shared=is_shared)
    else:
        made = _reports(source, slug, options, keep, accepted_drift(settings), is_shared=is_shared)
    # An interruption between two bundles ends the threads of the others too: else the program would wait for them.
    with closing(made):
        for report in made:
            reports.append({"source": source.place, **report})
            if not as_json:
                _show(reports[-1])
    if as_json:
        show_json(reports)
    sys.exit(FAILED if any(report["error"] for report in reports) else 0)


def backup_source() -> Source:
    """The installation of the settings, through the login of BACKUP_DATABASE_URL or, if that is not set, the
    migrator's. A machine that only takes backups needs no other login.
    """
    return _source_of(backup_settings_or_exit())


def _source_of(settings: Settings | BackupSettings) -> Source:
    if isinstance(settings, BackupSettings) or settings.backup_database_url:
        return source_at(settings.backup_database_url, settings)
    return source_at(admin_url_or_exit(settings), settings)


def source_at(url: str, settings: Settings | BackupSettings) -> Source:
    return Source(url=url, migrations=MIGRATIONS, backup_policy=BACKUP_POLICY, keys=bundle_keys(settings))


def _reports(
    source: Source,
    slug: str | None,
    options: BackupOptions,
    keep: Keep | None,
    accepted: AcceptedDrift,
    *,
    is_shared: bool,
) -> Generator[dict[str, Any], None, None]:
    """The result of each bundle. That of the schema shared is written last, so that it has all users of the others. It
    is not tried if the registry can't be read.
    """
    is_readable = True
    if not is_shared:
        for taken in _back_up(source, slug, options):
            is_readable = taken.slug != _REGISTRY
            drift = taken.bundle.manifest.drift if taken.bundle else None
            yield _report_of(taken, keep, source.keys) | {"drift": accepted.without_accepted(drift or ())}
    if slug is None and is_readable:
        yield shared_report(source, options, keep)


def _back_up(source: Source, slug: str | None, options: BackupOptions) -> Iterator[BackupOutcome]:
    try:
        if slug is None:
            yield from back_up_all(source, options)
        else:
            yield BackupOutcome(slug, back_up(source, slug, options))
    except TenantNotFound as error:
        exit_with(f"{error} Server: {source.place}.", BAD_ARGUMENTS)
    except BackupError as error:
        yield BackupOutcome(slug or _REGISTRY, error=str(error))


def _outdated(
    source: Source, slug: str | None, folder: Path, keep: Keep, *, is_shared: bool
) -> Generator[dict[str, Any], None, None]:
    """What --keep would delete after the next backup, by tenant, and of the schema shared."""
    for tenant in () if is_shared else _tenants(source, slug):
        found = find_outdated(folder, tenant.slug, tenant.id, keep, source.keys)
        report = {"slug": tenant.slug, "bundle": None, "error": None, "would_remove": found.outdated}
        yield report | {"not_counted": found.uncounted, "not_ours": unsigned_bundles(folder, tenant.slug, source.keys)}
    if slug is None:
        yield outdated_shared_report(source, folder, keep)


def _tenants(source: Source, slug: str | None) -> list[Tenant]:
    try:
        with translate_errors(slug or "the registry"), source.connect(slug or "all") as connection:
            rows = [find_registry_row(connection, slug)] if slug else list_registry_rows(connection)
    except TenantNotFound as error:
        exit_with(f"{error} Server: {source.place}.", BAD_ARGUMENTS)
    return [row.tenant for row in rows]


def _report_of(taken: BackupOutcome, keep: Keep | None, keys: BundleKeys) -> dict[str, Any]:
    """One tenant's result. Deletes its old bundles if the new one is complete."""
    report: dict[str, Any] = {"slug": taken.slug, "bundle": None, "error": taken.error}
    report |= {"removed": [], "not_counted": [], "not_ours": []}
    if taken.bundle is not None:
        files = taken.bundle.manifest.files
        report |= {"bundle": taken.bundle.folder, "bytes": sum(file.bytes for file in files)}
        report["rows"] = sum(rows.rows for rows in taken.bundle.manifest.tables)
        try:
            if keep:
                found = keep_newest(taken.bundle, keep, keys)
                report |= {"removed": found.outdated, "not_counted": found.uncounted}
                report["not_ours"] = unsigned_bundles(taken.bundle.folder.parent, taken.slug, keys)
        except (OSError, TenancyError) as error:
            report["error"] = f"The backup is complete, but older bundles could not be deleted: {error}"
    return report


def _show(report: dict[str, Any]) -> None:
    slug = report["slug"]
    if report["bundle"]:
        print(f"{slug}: {report['rows']} rows, {report['bytes']} bytes from {report['source']} in {report['bundle']}")
    if report.get("drift"):
        warn(f"{slug} differs from the migrations in {told(report['drift'], _OBJECTS_AT_MOST)}")
    for folder in report.get("removed", ()):
        print(f"{slug}: deleted {folder}")
    for folder in report.get("would_remove", ()):
        print(f"{slug}: would delete {folder}")
    for folder in report["not_counted"]:
        warn(f"{slug}: not counted, because it is damaged or a restore may refuse its rows: {folder}")
    if report["not_ours"]:
        folders = ", ".join(map(str, report["not_ours"]))
        warn(f"{slug}: neither counted nor deleted, because this installation did not sign them: {folders}")
    if report["error"]:
        warn(f"{slug}: {report['error']}")


if __name__ == "__main__":
    main()
