"""Drop an archived tenant for good: its schema, its login, its memberships, sessions and API keys, and its retired
schemas. All or nothing; users and other tenants are not touched.

The tenant is backed up first, to a bundle in the folder --to. The backup reads the server of ADMIN_DATABASE_URL, from
which the tenant is dropped, and never that of BACKUP_DATABASE_URL. The tenant's tables are locked against writing from
before the backup until they are dropped. If the backup fails, nothing is dropped.

Refuses while an enabled webhook of the tenant waits for events, unless --undelivered is given.

Example:
    python -m scripts.archive_tenant km
    python -m scripts.drop_tenant km --to /backups

Asks for the slug twice, unless --yes is given. Prints the bundle's folder.

Exit codes: 0 the tenant is dropped; 1 it is not archived, its webhooks wait for events, its tables are in use, or the
backup failed; 2 bad arguments, another slug was typed, or there is no tenant SLUG. With 1 and 2 nothing was dropped.
"""

from pathlib import Path

import rich_click as click

from app.db import admin_engine
from app.webhooks.undelivered import count_behind
from scripts.backup_tenant import seal_to_option, source_at, with_dump_option
from scripts.support.console import (
    BAD_ARGUMENTS,
    admin_url_or_exit,
    exit_with,
    json_option,
    settings_or_exit,
    show_json,
)
from scripts.support.script import Script
from tenant_schemas.backup.backup import back_up
from tenant_schemas.backup.bundle import open_bundle
from tenant_schemas.backup.encryption import read_recipients
from tenant_schemas.backup.source import Source
from tenant_schemas.backup.writer import BackupOptions
from tenant_schemas.errors import BackupError, KeyRefused, LifecycleError
from tenant_schemas.lifecycle.drop import drop
from tenant_schemas.tenant import Tenant


@click.command(cls=Script, help=__doc__)
@click.argument("slug")
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), help="Folder for its last bundle.")
@click.option("--no-backup", is_flag=True, help="Drop it without a backup: its data is lost.")
@with_dump_option
@seal_to_option
@click.option("--undelivered", is_flag=True, help="Drop it although webhooks wait for events, which they never get.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def main(
    *,
    slug: str,
    folder: Path | None,
    no_backup: bool,
    with_dump: bool,
    sealed_for: tuple[str, ...],
    undelivered: bool,
    yes: bool,
    as_json: bool,
) -> None:
    if (folder is None) != no_backup:
        exit_with("Give a folder for the last bundle (--to), or --no-backup.", BAD_ARGUMENTS)
    try:
        read_recipients(sealed_for)
    except KeyRefused as error:
        exit_with(str(error), BAD_ARGUMENTS)
    if not yes:
        _confirm_twice(slug)
    options = BackupOptions(folder=folder, with_dump=with_dump, sealed_for=sealed_for) if folder else None
    bundle = _drop(slug, options, undelivered=undelivered)
    if as_json:
        show_json({"slug": slug, "bundle": bundle})
    else:
        print(f"Tenant {slug} is dropped. " + (f"Its last bundle is {bundle}." if bundle else "There is no backup."))


def _confirm_twice(slug: str) -> None:
    for question in ("Type the slug of the tenant to drop", "Type the slug again"):
        if click.prompt(question, err=True) != slug:
            exit_with(f"That is not the slug {slug!r}: nothing was dropped.", BAD_ARGUMENTS)


def _drop(slug: str, options: BackupOptions | None, *, undelivered: bool) -> Path | None:
    settings = settings_or_exit()
    url = admin_url_or_exit(settings)

    def back_up_first(tenant: Tenant) -> Path | None:
        if not undelivered:
            _refuse_undelivered(url, tenant)
        return _back_up(source_at(url, settings), tenant, options) if options else None

    return drop(admin_engine(url), slug, back_up_first)


def _refuse_undelivered(url: str, tenant: Tenant) -> None:
    """Raises LifecycleError. The tenant's tables are locked against writing, so the answer stays true."""
    with admin_engine(url).begin() as connection:
        behind = count_behind(connection, tenant.schema_name)
    if behind:
        raise LifecycleError(
            f"Nothing was dropped: {behind} webhooks of tenant {tenant.slug!r} wait for events. Let the relay deliver "
            f"them, disable them with `flask webhooks disable --tenant {tenant.slug}`, or give --undelivered."
        )


def _back_up(source: Source, tenant: Tenant, options: BackupOptions) -> Path:
    """Reads the bundle again from the disk. Raises BackupError if it is of another tenant: a URL may name several
    servers, and connect to any of them.
    """
    bundle = open_bundle(back_up(source, tenant.slug, options).folder, source.keys)
    if bundle.manifest.tenant.id != tenant.id:
        raise BackupError(
            f"Nothing was dropped: the backup in {bundle.folder} is of another tenant {tenant.slug!r}, with id "
            f"{bundle.manifest.tenant.id}. Set ADMIN_DATABASE_URL to one server."
        )
    return bundle.folder


if __name__ == "__main__":
    main()
