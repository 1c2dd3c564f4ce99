"""Make a tenant of a bundle again: `python -m scripts.restore_tenant /backups/km-20260101T000000Z`, or another beside
the living one: `… --as km2`.

As it was, the tenant of the bundle gets its data back, in one moment; what it had until then is kept, closed, for some
days. Its members, settings and login stay as they are today; a tenant that is not there comes back with those of the
bundle. Beside a tenant that is there, only its members of today get in, in their roles of today. All rows, totals and
chains are proved before; what fails leaves nothing behind, or says what and how to drop it.

Versions of what is restored, as ETags show them, are the bundle's again: let clients read anew before they change what
they read before. Until people who are made anew are committed with all else, no tenant can be made or dropped.
"""

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import psycopg
import rich_click as click
from sqlalchemy.exc import SQLAlchemyError

from app.backup_policy import BACKUP_POLICY
from app.db import admin_engine
from app.tenancy import MIGRATIONS, RESERVED_SLUGS
from scripts.support.console import (
    BAD_ARGUMENTS,
    FAILED,
    admin_url_or_exit,
    json_option,
    settings_or_exit,
    show_json,
    stop,
)
from tenant_schemas.backup.bundle import Bundle, open_bundle
from tenant_schemas.errors import AgeKeyRefused, NameRefused, TenancyError
from tenant_schemas.restore.restore import KEEP, Destination, Restored, living_tenant, restore
from tenant_schemas.restore.user_mapping import Users

bundle_argument = click.argument(
    "folder", metavar="BUNDLE", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
identity_option = click.option(
    "--identity",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The file with the key of a sealed bundle.",
)


@click.command(help=__doc__)
@bundle_argument
@click.option(
    "--as",
    "slug",
    help="Make another tenant of it, with this slug, and leave the living one alone. It has the members that one has "
    "today; if there is none, the bundle's.",
)
@click.option("--name", help="The name people see of that. Default: the bundle's.")
@click.option(
    "--users",
    type=click.Choice([users.value for users in Users]),
    default=Users.FAIL.value,
    show_default=True,
    help="What to do if people are missing here or have other ids: fail and list them, make the missing anew without a "
    "way to log in, or take those who are here under the same e-mail.",
)
@click.option(
    "--keep-days", type=click.IntRange(0, 3650), default=KEEP.days, show_default=True, help="Of what it replaces."
)
@identity_option
@click.option(
    "--yes", is_flag=True, help="Do not ask before a living tenant is replaced. One that was renamed since is not."
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
    yes: bool,
    as_json: bool,
) -> None:
    if name and not slug:
        stop("--name is for a tenant that is made with --as.", BAD_ARGUMENTS)
    destination = restore_destination()
    try:
        bundle = open_bundle(folder, identity)
        if slug is None:
            _confirm(destination, bundle, yes=yes)
        keep = timedelta(days=keep_days)
        restored = restore(destination, bundle, slug=slug, name=name, users=Users(users), keep=keep)
    except (TenancyError, SQLAlchemyError, psycopg.Error) as error:
        stop_for(error)
    if as_json:
        show_json(asdict(restored))
    else:
        _show(restored, keep_days)


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


def stop_for(error: Exception) -> NoReturn:
    """Exit with what went wrong: 2 for names and keys that are none, else 1."""
    stop(told_of(error), BAD_ARGUMENTS if isinstance(error, NameRefused | AgeKeyRefused) else FAILED)


def told_of(error: Exception) -> str:
    """What went wrong, and what is left."""
    return "\n".join([str(getattr(error, "orig", None) or error), *getattr(error, "__notes__", ())])


def _confirm(destination: Destination, bundle: Bundle, *, yes: bool) -> None:
    living, was = living_tenant(destination, bundle.manifest), bundle.manifest.tenant.slug
    if living is None:
        return
    renamed = f"The bundle was taken as {was}, and that tenant is {living.slug} now. " if was != living.slug else ""
    if yes and renamed:
        stop(f"{renamed}Nothing was done: if that is meant, run it without --yes.", BAD_ARGUMENTS)
    moment = f"{bundle.manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC"
    told = (
        f"{renamed}{living.slug} goes back to {moment}; what came since is kept aside, closed.\nType its slug to go on"
    )
    if not yes and click.prompt(told, default="", show_default=False, err=True) != living.slug:
        stop("Nothing was done.", FAILED)


def _show(restored: Restored, keep_days: int) -> None:
    tenant = restored.tenant
    print(f"Tenant {tenant.slug} is restored: {restored.rows} rows, proved, in schema {tenant.schema_name}.")
    if not tenant.is_active:
        print(f"It is {tenant.status}, as it was.")
    if restored.ids_replaced:
        print(f"{restored.ids_replaced} people have other ids here; the chains were made anew with those.")
    if restored.replaced_schema:
        print(f"Schema {restored.replaced_schema} is what it had before: closed, and kept for {keep_days} days.")


if __name__ == "__main__":
    main()
