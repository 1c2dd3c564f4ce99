"""A bundle is tried out: loaded into a schema that nobody gets, proved like a restore, and dropped. That it can't
be dropped at once says nothing of the bundle, and is a warning.

People who are missing are made within the db transaction that loads, and with it rolled back.
"""

from dataclasses import dataclass
from secrets import token_hex
from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.manifest import Manifest
from tenant_schemas.errors import VerificationFailed
from tenant_schemas.lifecycle.provision import refuse_unprepared
from tenant_schemas.restore.cutover import open_schema
from tenant_schemas.restore.loader import check_shared, load
from tenant_schemas.restore.restore import Destination, begin_filling, refuse_newer
from tenant_schemas.restore.staging_schema import staging_schema
from tenant_schemas.restore.user_mapping import Users, settle_people
from tenant_schemas.roles import driver_of, tenant_password
from tenant_schemas.schema_diff.catalog import fingerprints_of
from tenant_schemas.tenant import Tenant, TenantStatus, role_name_of

_SLUG_SHOWN: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was looked at. `same_form` tells whether the schema had the form of its revision when it was backed up; None
    where another version of PostgreSQL describes it in other words. `warnings` are of what could not be cleared away.
    """

    tenant_id: UUID
    slug: str
    revision: str
    tables: int
    rows: int
    files: int
    same_form: bool | None
    warnings: tuple[str, ...]


def verify(destination: Destination, bundle: Bundle) -> Verified:
    """Try the bundle out. Raises RestoreError or BackupError for what does not hold. Leaves nothing either way, or
    says what.
    """
    manifest = bundle.manifest
    check_shared(destination.backup_policy, bundle)
    with destination.engine.connect() as connection:
        refuse_unprepared(connection, destination.migrations)
    refuse_newer(destination.migrations, manifest)
    tenant = _scratch_tenant(manifest)
    password = tenant_password(destination.tenant_secret, tenant.id, tenant.login_epoch)
    with (
        staging_schema(
            destination.engine, destination.migrations, tenant, reason="verifying", password=password
        ) as left,
        destination.engine.connect() as connection,  # Nothing is committed.
    ):
        driver = begin_filling(connection, destination.migrations, tenant)
        settle_people(driver, destination.backup_policy, bundle, tenant.schema_name, Users.RECREATE_DISABLED)
        rows = load(connection, destination.backup_policy, bundle, tenant.schema_name, {})
        same_form = _check_form(connection, bundle, tenant)
    return Verified(
        tenant_id=tenant.id,
        slug=tenant.slug,
        revision=tenant.revision,
        tables=len(manifest.tables),
        rows=rows,
        files=len(manifest.files),
        same_form=same_form,
        warnings=tuple(left),
    )


def _scratch_tenant(manifest: Manifest) -> Tenant:
    """One that is never registered, with a schema and a login of its own: the rights are a part of the form."""
    was = manifest.tenant
    name = f"verify_{was.slug[:_SLUG_SHOWN]}_{token_hex(4)}"
    return Tenant(
        id=was.id,
        slug=was.slug,
        schema_name=name,
        role_name=role_name_of(name),
        name=was.name,
        status=TenantStatus.SUSPENDED,
        login_epoch=1,
        revision=was.revision,
        settings=was.settings,
    )


def _check_form(connection: Connection, bundle: Bundle, tenant: Tenant) -> bool | None:
    """Raises VerificationFailed for another form, unless the bundle owns up to it by pg_dump's file."""
    manifest = bundle.manifest
    server = driver_of(connection).info.server_version // 10_000
    if manifest.server_version.partition(".")[0] != str(server):
        return None
    open_schema(connection, tenant)
    same = fingerprints_of(connection, [tenant])[tenant.schema_name] == manifest.fingerprint
    if not same and manifest.dump is None:
        raise VerificationFailed(f"The fingerprint differs: the tenant had not the form of revision {tenant.revision}.")
    return same
