"""Back up one tenant, or all: `python -m scripts.backup_tenant km --to /backups`. Members go on paying meanwhile.

It reads the server of BACKUP_DATABASE_URL, else of ADMIN_DATABASE_URL, and says which.
A bundle is a private folder SLUG-TIME with every table's rows, what of `shared` is the tenant's, and a manifest by
which all of it can be proved. It appears whole or not at all, and none is ever overwritten. Exits 1 if any tenant has
none.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rich_click as click

from app.backup_policy import BACKUP_POLICY
from app.tenancy import MIGRATIONS
from scripts.support.console import (
    BAD_ARGUMENTS,
    FAILED,
    admin_url_or_exit,
    json_option,
    settings_or_exit,
    show_json,
    stop,
)
from tenant_schemas.backup.backup import back_up
from tenant_schemas.backup.backup_all import Taken, back_up_all
from tenant_schemas.backup.encryption import read_recipients
from tenant_schemas.backup.retention import keep_newest
from tenant_schemas.backup.source import Source
from tenant_schemas.backup.writer import Shape
from tenant_schemas.errors import AgeKeyRefused, BackupError, TenancyError, TenantNotFound


@click.command(help=__doc__)
@click.argument("slug", required=False)
@click.option("--all", "is_all", is_flag=True, help="Every tenant of any status, under one snapshot.")
@click.option("--to", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), help="Where to.")
@click.option("--keep", type=click.IntRange(1), help="Then remove all but the N newest whole bundles of the tenant.")
@click.option("--with-dump", is_flag=True, help="Take pg_dump's file of the schema along; needed for a drifted tenant.")
@click.option("--jobs", type=click.IntRange(1, 64), default=1, help="Connections: for one large tenant, or for --all.")
@click.option("--seal-to", "sealed_for", multiple=True, help="Encrypt for this recipient, age1…; may be repeated.")
@json_option
def main(
    *,
    slug: str | None,
    is_all: bool,
    folder: Path,
    keep: int | None,
    with_dump: bool,
    jobs: int,
    sealed_for: tuple[str, ...],
    as_json: bool,
) -> None:
    if is_all == bool(slug):
        stop("Name one tenant, or say --all.", BAD_ARGUMENTS)
    try:
        read_recipients(sealed_for)
    except AgeKeyRefused as error:
        stop(str(error), BAD_ARGUMENTS)
    shape = Shape(folder=folder, jobs=jobs, with_dump=with_dump, sealed_for=sealed_for)
    source, told = backup_source(), []
    for taken in _take(source, slug, shape):
        told.append({"source": source.place, **_told(taken, keep)})
        if not as_json:
            _show(told[-1])
    if as_json:
        show_json(told)
    sys.exit(FAILED if any(each["error"] for each in told) else 0)


def backup_source() -> Source:
    """The installation of the settings, by the login that is for backups if there is one."""
    settings = settings_or_exit()
    return source_at(settings.backup_database_url or admin_url_or_exit(settings))


def source_at(url: str) -> Source:
    return Source(url=url, migrations=MIGRATIONS, backup_policy=BACKUP_POLICY)


def _take(source: Source, slug: str | None, shape: Shape) -> Iterator[Taken]:
    try:
        if slug is None:
            yield from back_up_all(source, shape)
        else:
            yield Taken(slug, back_up(source, slug, shape))
    except TenantNotFound as error:
        stop(f"{error} Looked for at {source.place}.", BAD_ARGUMENTS)
    except BackupError as error:
        yield Taken(slug or "all", error=str(error))


def _told(taken: Taken, keep: int | None) -> dict[str, Any]:
    """The old ones go only when the new one is in place."""
    told: dict[str, Any] = {"slug": taken.slug, "bundle": None, "error": taken.error, "removed": []}
    if taken.bundle is not None:
        files = taken.bundle.manifest.files
        told |= {"bundle": taken.bundle.folder, "bytes": sum(file.bytes for file in files)}
        told["rows"] = sum(rows.rows for rows in taken.bundle.manifest.tables)
        try:
            told["removed"] = keep_newest(taken.bundle, keep) if keep else []
        except (OSError, TenancyError) as error:
            told["error"] = f"It is taken, but older ones can't be removed: {error}"
    return told


def _show(told: dict[str, Any]) -> None:
    slug = told["slug"]
    if told["bundle"]:
        print(f"{slug}: {told['rows']} rows, {told['bytes']} bytes of {told['source']} in {told['bundle']}")
    for removed in told["removed"]:
        print(f"{slug}: removed {removed}")
    if told["error"]:
        print(f"{slug}: {told['error']}", file=sys.stderr)


if __name__ == "__main__":
    main()
