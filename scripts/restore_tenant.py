"""Restore a tenant from a bundle or a retired schema, in place or, with --as, as a new tenant beside the existing one.

In place, all of the tenant's data is replaced at one moment. Its members, settings and login stay as they are today.
The replaced data is kept in a retired schema for --keep-days. If the tenant no longer exists, it is created again with
the members and settings of the bundle.

--from-retired undoes a restore: the data that it replaced, in the retired schema SCHEMA, is backed up into a temporary
folder and restored from there, with all of the proofs. What is there today becomes a retired schema in its turn.

--dry-run shows what the restore would change, and changes nothing: the balances, ledger entries and rows since the
bundle, the members and settings, which stay, and what the restore does not bring back: tables, functions and other
objects that the migrations do not make. The same summary precedes the question.

With --as, the new tenant gets the members that the existing tenant has today, in their roles of today. Members removed
after the backup are not restored. If the tenant of the bundle no longer exists, the new one gets the bundle's members.

A bundle that no key of this installation signed is refused, unless --accept-foreign is given: anyone may have written
it. All rows, totals and hash chains are verified before the tenant is touched. If the restore fails, the tenant is
unchanged and nothing is left, or the error says what to remove. Restored wallets have the version numbers (ETags) of
the bundle, so clients must read a wallet again before they change it. While the restore creates users (see --users), no
other tenant can be provisioned, restored or dropped.

Examples:
    python -m scripts.restore_tenant /backups/km-20260101T000000Z
    python -m scripts.restore_tenant /backups --latest km --dry-run
    python -m scripts.restore_tenant /backups/km-20260101T000000Z --as km2
    python -m scripts.restore_tenant --from-retired km_schema

Asks for the slug before it replaces data, unless --yes is given. Prints the number of rows and the schemas, and on
standard error what was not brought back.

Exit codes: 0 the tenant is restored, or could be (--dry-run); 1 it could not be restored, or another slug was typed; 2
bad arguments.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import psycopg
import rich_click as click
from sqlalchemy.exc import SQLAlchemyError

from app.backup_policy import BACKUP_POLICY, bundle_keys
from app.db import admin_engine
from app.restore_preview import preview_lines, preview_report
from app.tenancy import MIGRATIONS, RESERVED_SLUGS
from scripts.backup_tenant import source_at
from scripts.support.console import (
    BAD_ARGUMENTS,
    FAILED,
    admin_url_or_exit,
    exit_with,
    json_option,
    one_line,
    settings_or_exit,
    show_json,
    warn,
)
from scripts.support.script import Script
from tenant_schemas.backup.bundle import Bundle, open_bundle
from tenant_schemas.backup.manifest import Manifest
from tenant_schemas.backup.retired import back_up_retired
from tenant_schemas.backup.signature import Origin
from tenant_schemas.backup.staging import newest_folder
from tenant_schemas.backup.writer import BackupOptions
from tenant_schemas.errors import BindingMismatch, KeyRefused, NameRefused, TenancyError
from tenant_schemas.restore.preview import Preview, preview
from tenant_schemas.restore.restore import KEEP, Destination, Restored, restore, tenant_to_replace
from tenant_schemas.restore.user_mapping import MissingUsers
from tenant_schemas.schema_diff.effects import told

identity_option = click.option(
    "--identity",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the age identity (the secret key) that opens an encrypted bundle.",
)


accept_foreign_option = click.option(
    "--accept-foreign",
    is_flag=True,
    help="Also take a bundle that this installation did not sign: anyone may have written its data.",
)
_OBJECTS_AT_MOST = 20
NOT_OURS = (
    "WARNING: {} is {}: this installation did not sign it. Its data agrees with its own manifest only, and nothing "
    "proves where it comes from."
)


@click.command(cls=Script, help=__doc__)
@click.argument(
    "folder", metavar="[BUNDLE]", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("--latest", metavar="SLUG", help="BUNDLE is a folder of bundles: take the newest of this tenant.")
@click.option("--from-retired", "retired", metavar="SCHEMA", help="Restore the data in this retired schema.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Show what would change; restore nothing.")
@click.option(
    "--as",
    "slug",
    help="Make a new tenant with this slug, and leave the existing one unchanged.",
)
@click.option("--name", help="Display name of the new tenant. Default: the name in the bundle.")
@click.option(
    "--users",
    type=click.Choice([users.value for users in MissingUsers]),
    default=MissingUsers.FAIL.value,
    show_default=True,
    help="If users of the bundle are missing here, or have another id. fail: list them and stop. recreate-disabled: "
    "create the missing ones, disabled. remap: use the user with the same e-mail address, create the others, disabled.",
)
@click.option(
    "--keep-days",
    type=click.IntRange(0, 3650),
    default=KEEP.days,
    show_default=True,
    help="Days to keep the replaced schema.",
)
@identity_option
@accept_foreign_option
@click.option(
    "--yes",
    is_flag=True,
    help="Replace the tenant's data without asking. Refused if the tenant was renamed after the backup.",
)
@json_option
def main(
    *,
    folder: Path | None,
    latest: str | None,
    retired: str | None,
    is_dry: bool,
    slug: str | None,
    name: str | None,
    users: str,
    keep_days: int,
    identity: Path | None,
    accept_foreign: bool,
    yes: bool,
    as_json: bool,
) -> None:
    if name and not slug:
        exit_with("--name needs --as: a restore in place keeps the name of the tenant.", BAD_ARGUMENTS)
    if (folder is None) == (retired is None):
        exit_with("Give the folder of a BUNDLE, or --from-retired SCHEMA.", BAD_ARGUMENTS)
    if latest and folder is None:
        exit_with("--latest needs the folder of the bundles.", BAD_ARGUMENTS)
    destination = restore_destination()
    try:
        folder = newest_folder(folder, latest) if folder and latest else folder
        with _bundle(folder, retired, identity, accept_foreign=accept_foreign) as bundle:
            if is_dry:
                found = preview(destination, bundle, slug=slug, name=name)
                _show_preview(bundle.manifest, found, as_json=as_json)
                return
            if slug is None:
                _confirm(destination, bundle, yes=yes)
            keep = timedelta(days=keep_days)
            restored = restore(destination, bundle, slug=slug, name=name, users=MissingUsers(users), keep=keep)
    except (TenancyError, SQLAlchemyError, psycopg.Error) as error:
        exit_with_error(error)
    if as_json:
        show_json(restored)
    else:
        _show(restored, keep_days)


@contextmanager
def _bundle(
    folder: Path | None, retired: str | None, identity: Path | None, *, accept_foreign: bool
) -> Iterator[Bundle]:
    """The bundle in the folder, or one of the retired schema in a temporary folder, which is removed at the end."""
    if folder is not None:
        yield checked_bundle(folder, identity, accept_foreign=accept_foreign)
        return
    settings = settings_or_exit()
    source = source_at(admin_url_or_exit(settings), settings)
    with TemporaryDirectory(prefix="retired-") as temporary:
        yield back_up_retired(source, retired or "", BackupOptions(folder=Path(temporary)))


def checked_bundle(folder: Path, identity: Path | None, *, accept_foreign: bool) -> Bundle:
    """The bundle, opened with the keys of the settings. Warns about one that this installation did not sign."""
    bundle = open_bundle(folder, bundle_keys(settings_or_exit()), identity, accepts_foreign=accept_foreign)
    if bundle.origin is not Origin.OWN:
        warn(NOT_OURS.format(folder, bundle.origin))
    return bundle


def restore_destination() -> Destination:
    """The installation of the settings."""
    settings = settings_or_exit()
    return Destination(
        engine=admin_engine(admin_url_or_exit(settings)),
        migrations=MIGRATIONS,
        backup_policy=BACKUP_POLICY,
        tenant_secret=settings.tenant_secret,
        reserved_slugs=RESERVED_SLUGS,
    )


def exit_with_error(error: Exception) -> NoReturn:
    """Print the error and exit: 2 for an invalid name or key, else 1."""
    exit_with(error_text(error), BAD_ARGUMENTS if isinstance(error, NameRefused | KeyRefused) else FAILED)


def error_text(error: Exception) -> str:
    """The error's message and its notes, which name what could not be removed."""
    return "\n".join([one_line(error), *getattr(error, "__notes__", ())])


def _confirm(destination: Destination, bundle: Bundle, *, yes: bool) -> None:
    living, old_slug = tenant_to_replace(destination, bundle.manifest), bundle.manifest.tenant.slug
    if living is None:
        return
    renamed = f"The tenant {old_slug} of the bundle is now {living.slug}. " if old_slug != living.slug else ""
    if yes and renamed:
        exit_with(f"{renamed}Nothing was restored: to replace its data, run this without --yes.", BAD_ARGUMENTS)
    if not yes:
        warn(_summary(destination, bundle))
    question = (
        f"{renamed}The data of tenant {living.slug} is replaced by its data of {data_text(bundle.manifest)}. Today's "
        "data is kept in a retired schema.\nType the slug of the tenant to go on"
    )
    if not yes and click.prompt(question, default="", show_default=False, err=True) != living.slug:
        exit_with(f"That is not the slug {living.slug!r}: nothing was restored.", FAILED)


def _summary(destination: Destination, bundle: Bundle) -> str:
    """The lines of a dry run, or why there are none: a broken tenant can be restored too."""
    try:
        return "\n".join(preview_lines(bundle.manifest, preview(destination, bundle)))
    except (BindingMismatch, SQLAlchemyError, psycopg.Error) as error:
        return f"What would change can't be read: {error_text(error)}"


def _show_preview(manifest: Manifest, found: Preview, *, as_json: bool) -> None:
    if as_json:
        show_json(preview_report(manifest, found))
        return
    print(f"Restored data: {data_text(manifest)}.")
    for line in preview_lines(manifest, found):
        print(line)
    print("Nothing was changed: this was a dry run.")


def data_text(manifest: Manifest) -> str:
    """The time of a bundle's data, and the time at which it was taken."""
    taken = f"{manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{manifest.data}, backed up {taken}" if manifest.data else f"{taken}, by the time of the backup"


def _show(restored: Restored, keep_days: int) -> None:
    tenant = restored.tenant
    is_ours = restored.origin is Origin.OWN
    checked = "verified" if is_ours else f"from a bundle that is {restored.origin} and that nothing proves"
    print(f"Tenant {tenant.slug} is restored: {restored.rows} rows, {checked}, in schema {tenant.schema_name}.")
    if not tenant.is_active:
        print(f"Its status is {tenant.status}, as before.")
    if restored.ids_replaced:
        print(f"{restored.ids_replaced} users have other ids here: ids replaced, hash chains computed anew.")
    for each in restored.left_out:
        warn(f"Not restored, because the migrations do not make it so: {each}.")
    if restored.drift_replaced:
        objects = told(restored.drift_replaced, _OBJECTS_AT_MOST)
        warn(f"Only the replaced schema has, because the migrations do not make it so: {objects}.")
    if restored.replaced_schema:
        print(f"Its replaced data is kept in the retired schema {restored.replaced_schema} for {keep_days} days.")


if __name__ == "__main__":
    main()
