"""Verifies a bundle: loads it into a staging schema, proves and migrates it like a restore, and drops the schema.

Missing users are created in the db transaction that loads, which is rolled back. A schema that can't be dropped is a
warning, not a fault of the bundle.
"""

from dataclasses import dataclass
from secrets import token_hex
from typing import Final
from uuid import UUID

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.manifest import Manifest
from tenant_schemas.backup.signature import Origin
from tenant_schemas.errors import RevisionRefused, VerificationFailed
from tenant_schemas.lifecycle.provision import check_prepared
from tenant_schemas.migrations.history import History, Migrations, first_line
from tenant_schemas.restore.cutover import grant_schema_usage
from tenant_schemas.restore.loader import check_shared, load
from tenant_schemas.restore.restore import Destination, begin_load, check_revisions_known
from tenant_schemas.restore.staging_schema import staging_schema
from tenant_schemas.restore.user_mapping import MissingUsers, map_users
from tenant_schemas.roles import driver_of, tenant_password
from tenant_schemas.schema_diff.catalog import fingerprints_of
from tenant_schemas.secret_checks import check_tenant_secret
from tenant_schemas.tenant import Tenant, TenantStatus, role_name_of

_SLUG_SHOWN: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The result of a verification. `origin` says whether this installation signed the bundle: any other one agrees
    with its own manifest, which proves nothing about where it comes from. `same_form` says whether the backed up schema
    had its revision's structure; None if the bundle is from another major version of PostgreSQL, whose fingerprints are
    not comparable, or of a retired schema, which has none. `migrated_to` is the head, to which a restore would migrate
    it. `warnings` name what could not be dropped.
    """

    origin: Origin
    tenant_id: UUID
    slug: str
    revision: str
    migrated_to: str
    tables: int
    rows: int
    files: int
    same_form: bool | None
    warnings: tuple[str, ...]


def verify(destination: Destination, bundle: Bundle) -> Verified:
    """Verify a bundle; nothing is committed except the staging schema, which is dropped again. Raises RestoreError or
    BackupError if the bundle is not valid. Anything left behind is named in `warnings` or in the error's notes.
    """
    manifest = bundle.manifest
    destination.backup_policy.check_settings(manifest.tenant.settings)
    check_shared(destination.backup_policy, bundle)
    with destination.engine.connect() as connection:
        check_prepared(connection, destination.migrations)
        check_tenant_secret(driver_of(connection), destination.tenant_secret)
    check_revisions_known(destination.migrations, manifest)
    tenant = _scratch_tenant(manifest)
    password = tenant_password(destination.tenant_secret, tenant.id, tenant.login_epoch)
    with (
        staging_schema(
            destination.engine, destination.migrations, tenant, reason="verifying", password=password
        ) as warnings,
        destination.engine.connect() as connection,  # Never committed.
    ):
        driver = begin_load(connection, destination.migrations, tenant)
        map_users(driver, destination.backup_policy, bundle, tenant.schema_name, MissingUsers.RECREATE_DISABLED)
        rows = load(connection, destination.backup_policy, bundle, tenant.schema_name, {})
        same_form = _check_form(connection, bundle, tenant)
        migrated_to = _migrate(connection, destination.migrations, tenant)
    return Verified(
        origin=bundle.origin,
        tenant_id=tenant.id,
        slug=tenant.slug,
        revision=tenant.revision,
        migrated_to=migrated_to,
        tables=len(manifest.tables),
        rows=rows,
        files=len(manifest.files),
        same_form=same_form,
        warnings=tuple(warnings),
    )


def _scratch_tenant(manifest: Manifest) -> Tenant:
    """A tenant that is never registered, with its own schema and role: the fingerprint includes the role's rights."""
    backed_up = manifest.tenant
    name = f"verify_{backed_up.slug[:_SLUG_SHOWN]}_{token_hex(4)}"
    return Tenant(
        id=backed_up.id,
        slug=backed_up.slug,
        schema_name=name,
        role_name=role_name_of(name),
        name=backed_up.name,
        status=TenantStatus.SUSPENDED,
        login_epoch=1,
        revision=backed_up.revision,
        settings=backed_up.settings,
    )


def _check_form(connection: Connection, bundle: Bundle, tenant: Tenant) -> bool | None:
    """Compare the structures by fingerprint. Raises VerificationFailed on drift without a pg_dump file."""
    manifest = bundle.manifest
    server = driver_of(connection).info.server_version // 10_000
    if not manifest.fingerprint or manifest.server_version.partition(".")[0] != str(server):
        return None
    grant_schema_usage(connection, tenant)
    same = fingerprints_of(connection, [tenant])[tenant.schema_name] == manifest.fingerprint
    if not same and manifest.dump is None:
        raise VerificationFailed(
            f"The fingerprint differs: the schema of {tenant.slug} did not have the structure of revision "
            f"{tenant.revision} when it was backed up."
        )
    return same


def _migrate(connection: Connection, migrations: Migrations, tenant: Tenant) -> str:
    """Migrate the loaded rows to the head, as a restore does. Raises VerificationFailed."""
    try:
        return migrations.upgrade_tenant(connection, tenant)
    except (psycopg.Error, SQLAlchemyError, RevisionRefused) as error:
        head = migrations.head(History.TENANT)
        raise VerificationFailed(
            f"The bundle can't be restored, because it can't be migrated from revision {tenant.revision} to {head}: "
            f"{first_line(error)}"
        ) from error
