"""Restore a tenant from a bundle, in place or, with --as, as a new tenant beside the existing one.

In place, all of the tenant's data is replaced at one moment. Its members, settings and login stay as they are today.
The replaced data is kept in a retired schema for --keep-days. If the tenant no longer exists, it is created again with
the members and settings of the bundle.

With --as, the new tenant gets the members that the existing tenant has today, in their roles of today. Members removed
after the backup are not restored. If the tenant of the bundle no longer exists, the new one gets the bundle's members.

A bundle that no key of this installation signed is refused, unless --accept-foreign is given: anyone may have written
it. All rows, totals and hash chains are verified before the tenant is touched. If the restore fails, the tenant is
unchanged and nothing is left, or the error says what to remove. Restored wallets have the version numbers (ETags) of
the bundle, so clients must read a wallet again before they change it. While the restore creates users (see --users), no
other tenant can be provisioned, restored or dropped.

Examples:
    python -m scripts.restore_tenant /backups/km-20260101T000000Z
    python -m scripts.restore_tenant /backups/km-20260101T000000Z --as km2

Asks for the slug before it replaces data, unless --yes is given. Prints the number of rows and the schemas.

Exit codes: 0 the tenant is restored; 1 it could not be restored, or another slug was typed; 2 bad arguments.
"""

from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import psycopg
import rich_click as click
from sqlalchemy.exc import SQLAlchemyError

from app.backup_policy import BACKUP_POLICY, bundle_keys
from app.db import admin_engine
from app.tenancy import MIGRATIONS, RESERVED_SLUGS
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
from tenant_schemas.backup.signature import Origin
from tenant_schemas.errors import KeyRefused, NameRefused, TenancyError
from tenant_schemas.restore.restore import KEEP, Destination, Restored, restore, tenant_to_replace
from tenant_schemas.restore.user_mapping import MissingUsers

bundle_argument = click.argument(
    "folder", metavar="BUNDLE", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
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
NOT_OURS = (
    "WARNING: {} is {}: this installation did not sign it. Its data agrees with its own manifest only, and nothing "
    "proves where it comes from."
)


@click.command(cls=Script, help=__doc__)
@bundle_argument
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
    folder: Path,
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
    destination = restore_destination()
    try:
        bundle = checked_bundle(folder, identity, accept_foreign=accept_foreign)
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
    moment = f"{bundle.manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC"
    question = (
        f"{renamed}The data of tenant {living.slug} is replaced by its data of {moment}. Today's data is kept in a "
        "retired schema.\nType the slug of the tenant to go on"
    )
    if not yes and click.prompt(question, default="", show_default=False, err=True) != living.slug:
        exit_with(f"That is not the slug {living.slug!r}: nothing was restored.", FAILED)


def _show(restored: Restored, keep_days: int) -> None:
    tenant = restored.tenant
    is_ours = restored.origin is Origin.OWN
    checked = "verified" if is_ours else f"from a bundle that is {restored.origin} and that nothing proves"
    print(f"Tenant {tenant.slug} is restored: {restored.rows} rows, {checked}, in schema {tenant.schema_name}.")
    if not tenant.is_active:
        print(f"Its status is {tenant.status}, as before.")
    if restored.ids_replaced:
        print(f"{restored.ids_replaced} users have other ids here: ids replaced, hash chains computed anew.")
    if restored.replaced_schema:
        print(f"Its replaced data is kept in the retired schema {restored.replaced_schema} for {keep_days} days.")


if __name__ == "__main__":
    main()
