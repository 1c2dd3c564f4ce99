"""Restore a lost installation from a folder of bundles, on a server that has no tenants.

Takes the newest bundle of the schema shared and the newest of each tenant, among those that a key of the lost
installation signed (BACKUP_KEY_FILE, TENANT_SECRET). Makes the schema shared at the revision of its bundle, loads and
proves its rows, and migrates it to the head, in one db transaction. Then restores each tenant of the registry from its
bundle, with its login and with all proofs of `restore_tenant`, each in its own db transaction.

Users have their passwords and second factors, API keys their secrets. Everybody logs in again. Webhooks are disabled
(`restored`) until an admin enables them, and no mail that waited is sent. What happened after the bundles were taken is
lost.

A tenant that can't be restored is a line of the report, and the others are restored. Run it again to go on: what is
there is not touched. A tenant that was dropped before the bundle of the schema shared was taken is left out.

Refused on an installation that has tenants or users of its own, and with a TENANT_SECRET or SECRET_KEY that is not that
of the lost installation.

Example:
    python -m scripts.restore_installation /backups

With --superuser-url it first creates the roles and the database, as `create_roles` does.

Exit codes: 0 every tenant is there; 1 a tenant is not, or nothing could be restored: the errors say why; 2 bad
arguments.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich_click as click

from app.backup_policy import bundle_keys
from app.config import Settings
from app.db import admin_engine
from app.secret_checks import record_first_secrets, secrets_of
from app.shared_policy import SHARED_POLICY
from scripts.create_roles import check_superuser, create_roles
from scripts.restore_tenant import identity_option, restore_destination
from scripts.support.console import (
    BAD_ARGUMENTS,
    FAILED,
    admin_url_or_exit,
    exit_with,
    json_option,
    settings_or_exit,
    show_json,
    warn,
)
from scripts.support.script import Script
from tenant_schemas.backup.bundle_set import find_bundles
from tenant_schemas.backup.encryption import read_identities
from tenant_schemas.backup.shared_bundle import SharedBundle, open_shared_bundle
from tenant_schemas.errors import KeyRefused
from tenant_schemas.restore.installation import Origins, Status, TenantOutcome, restore_tenants
from tenant_schemas.restore.restore import Destination
from tenant_schemas.restore.shared_restore import SharedRestored, is_loaded, restore_shared
from tenant_schemas.schema_diff.reference import store_head_fingerprint


@click.command(cls=Script, help=__doc__)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@identity_option
@click.option(
    "--superuser-url",
    envvar="SUPERUSER_DATABASE_URL",
    help="URL of a superuser's login, to create the roles and the database. Put its password into the environment "
    "variable PGPASSWORD. Default: SUPERUSER_DATABASE_URL.",
)
@click.option(
    "--accept-new-secrets",
    is_flag=True,
    help="TENANT_SECRET or SECRET_KEY of the lost installation is lost too: go on with those of the settings. With "
    "another SECRET_KEY second factors are unreadable, with another TENANT_SECRET webhooks have new secrets.",
)
@json_option
def main(
    *, folder: Path, identity: Path | None, superuser_url: str | None, accept_new_secrets: bool, as_json: bool
) -> None:
    settings = settings_or_exit()
    sources = _sources(folder, settings, identity)
    if superuser_url:
        check_superuser(superuser_url)
        create_roles(superuser_url, settings)
    destination = restore_destination()
    shared = _restore_shared(destination, sources.shared, settings, accepts_new_secrets=accept_new_secrets)
    if not as_json:
        _show_shared(sources.shared, shared, sources.origins.bundles.others)
    outcomes: list[TenantOutcome] = []
    for outcome in restore_tenants(destination, sources.origins):
        outcomes.append(outcome)
        if not as_json:
            _show(outcome)
    engine = admin_engine(admin_url_or_exit(settings))
    record_first_secrets(engine, settings)
    store_head_fingerprint(engine, destination.migrations)
    _show_end(sources, shared, outcomes, as_json=as_json)
    sys.exit(FAILED if any(outcome.status is Status.FAILED for outcome in outcomes) else 0)


@dataclass(frozen=True, slots=True)
class _Sources:
    """The bundle of the schema shared, and where the tenants come from."""

    shared: SharedBundle
    origins: Origins


def _sources(folder: Path, settings: Settings, identity: Path | None) -> _Sources:
    """The bundles of the folder. Exits 2 for an invalid key, and 1 without a bundle of the schema shared."""
    try:
        keys = bundle_keys(settings)
        if identity:
            read_identities(identity)
    except KeyRefused as error:
        exit_with(str(error), BAD_ARGUMENTS)
    bundles = find_bundles(folder, keys)
    if bundles.shared is None:
        exit_with(
            f"{folder} has no bundle of the schema shared (shared-TIME), so there are no users and no registry. "
            "Without one, restore each tenant with `python -m scripts.restore_tenant`.",
            FAILED,
        )
    shared = open_shared_bundle(bundles.shared, keys, identity)
    origins = Origins(bundles=bundles, keys=keys, identity_file=identity, shared_taken_at=shared.manifest.taken_at)
    return _Sources(shared, origins)


def _restore_shared(
    destination: Destination, bundle: SharedBundle, settings: Settings, *, accepts_new_secrets: bool
) -> SharedRestored | None:
    """The result; None if the schema shared is restored already."""
    if is_loaded(destination, bundle):
        return None
    return restore_shared(
        destination, SHARED_POLICY, bundle, secrets_of(settings), accepts_new_secrets=accepts_new_secrets
    )


def _show_shared(bundle: SharedBundle, shared: SharedRestored | None, others: tuple[Path, ...]) -> None:
    manifest = bundle.manifest
    if shared is None:
        print("Schema shared is here already: not touched.")
    else:
        print(f"Schema shared is restored from {bundle.folder}: {shared.rows} rows, data of {manifest.data}.")
        for name in shared.left_out:
            warn(f"Schema shared: left out, because the migrations do not make it: {name}")
    if others:
        warn(f"Not used, because this installation did not sign them: {', '.join(map(str, others))}")


def _show(outcome: TenantOutcome) -> None:
    if outcome.status is Status.FAILED:
        warn(f"{outcome.slug}: not restored: {outcome.error}")
    elif outcome.status is Status.LEFT_OUT:
        print(f"{outcome.slug}: {outcome.bundle} is left out: the tenant was dropped before the bundle of shared.")
    elif outcome.status is Status.HERE:
        print(f"{outcome.slug}: is here already: not touched.")
    else:
        print(f"{outcome.slug}: restored, {outcome.rows} rows, data of {outcome.data_as_of:%Y-%m-%d %H:%M:%S} UTC.")


def _show_end(
    sources: _Sources, shared: SharedRestored | None, outcomes: list[TenantOutcome], *, as_json: bool
) -> None:
    if as_json:
        report: dict[str, Any] = {"sharedBundle": sources.shared.folder, "shared": shared, "tenants": outcomes}
        show_json(report | {"notOurs": sources.origins.bundles.others})
        return
    wanted = [outcome for outcome in outcomes if outcome.status is not Status.LEFT_OUT]
    there = sum(outcome.status is not Status.FAILED for outcome in wanted)
    print(f"{there} of {len(wanted)} tenants are there.")


if __name__ == "__main__":
    main()
