"""Destroy an archived tenant: its schema, its login, its members' place in it, its keys and its retired schemas. People
and the other tenants stay. All or nothing.

It is backed up first, into a bundle in the folder --to, from ADMIN_DATABASE_URL, where it is destroyed, whatever
BACKUP_DATABASE_URL says; nobody can write to it from then on, and a backup that fails destroys nothing. Asks for the
slug twice; --yes is for machines.
"""

from pathlib import Path

import rich_click as click

from app.db import admin_engine
from scripts.backup_tenant import source_at
from scripts.support.console import (
    BAD_ARGUMENTS,
    admin_url_or_exit,
    json_option,
    refusals_exit,
    settings_or_exit,
    show_json,
    stop,
)
from tenant_schemas.backup.backup import back_up
from tenant_schemas.backup.encryption import read_recipients
from tenant_schemas.backup.writer import Shape
from tenant_schemas.errors import AgeKeyRefused, BackupError
from tenant_schemas.lifecycle.drop import drop
from tenant_schemas.tenant import Tenant


@click.command(help=__doc__)
@click.argument("slug")
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), help="Where its last backup goes.")
@click.option("--no-backup", is_flag=True, help="Take none: all of it is lost.")
@click.option("--with-dump", is_flag=True, help="Take pg_dump's file of the schema along; needed for a drifted tenant.")
@click.option("--seal-to", "sealed_for", multiple=True, help="Encrypt for this recipient, age1…; may be repeated.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def main(
    *,
    slug: str,
    folder: Path | None,
    no_backup: bool,
    with_dump: bool,
    sealed_for: tuple[str, ...],
    yes: bool,
    as_json: bool,
) -> None:
    if (folder is None) != no_backup:
        stop("Say where its last backup goes (--to), or --no-backup.", BAD_ARGUMENTS)
    try:
        read_recipients(sealed_for)
    except AgeKeyRefused as error:
        stop(str(error), BAD_ARGUMENTS)
    if not yes:
        _ask_twice(slug)
    shape = Shape(folder=folder, with_dump=with_dump, sealed_for=sealed_for) if folder else None
    bundle = _drop(slug, shape)
    if as_json:
        show_json({"slug": slug, "bundle": bundle})
    else:
        print(f"Tenant {slug} is no more. " + (f"Its backup is {bundle}." if bundle else "There is no backup."))


def _ask_twice(slug: str) -> None:
    for question in ("Type the slug of the tenant that is to be destroyed", "Type it again"):
        if click.prompt(question, err=True) != slug:
            stop("That is another slug: nothing was done.", BAD_ARGUMENTS)


def _drop(slug: str, shape: Shape | None) -> Path | None:
    url = admin_url_or_exit(settings_or_exit())

    def take(tenant: Tenant) -> Path | None:
        return _back_up(url, tenant, shape) if shape else None

    with refusals_exit():
        return drop(admin_engine(url), slug, take)


def _back_up(url: str, tenant: Tenant, shape: Shape) -> Path:
    """A URL may name several servers, and lead to another one each time."""
    bundle = back_up(source_at(url), tenant.slug, shape)
    if bundle.manifest.tenant.id != tenant.id:
        raise BackupError(f"Nothing was dropped: {bundle.folder} is of another tenant {tenant.slug!r} than this one.")
    return bundle.folder


if __name__ == "__main__":
    main()
