"""Restores a bundle: as the tenant that was backed up, replacing its data, or as another tenant with a new slug.

There are two db transactions. The first makes an empty schema, recorded as retired; it is short, because it locks
tables of `shared` against writes. The second loads, proves, creates missing users, migrates, and swaps the schemas as
its last step. So after an interruption the tenant is either completely restored or unchanged.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, Engine

from tenant_schemas import registry
from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.manifest import Manifest
from tenant_schemas.backup.policy import BackupPolicy
from tenant_schemas.backup.signature import Origin
from tenant_schemas.backup.table_io import pin_session
from tenant_schemas.errors import RestoreRefused, RevisionRefused, TenantExists, TenantNotFound
from tenant_schemas.lifecycle.provision import check_prepared, new_tenant
from tenant_schemas.migrations.history import History, Migrations, set_timeouts
from tenant_schemas.restore.cutover import Replacement, register, swap
from tenant_schemas.restore.left_out import drift_today, left_out
from tenant_schemas.restore.loader import (
    check_shared,
    constant,
    copy_in,
    find_file,
    load,
    member_tables_in,
    replace_ids,
    shared_lines,
)
from tenant_schemas.restore.staging_schema import (
    drop_abandoned_schemas,
    lock_retired_schema,
    staging_schema,
    with_free_schema_name,
)
from tenant_schemas.restore.table_order import tables_in_order
from tenant_schemas.restore.user_mapping import Ids, MissingUsers, copy_members, map_users
from tenant_schemas.roles import become_owner, driver_of, role_exists, tenant_password
from tenant_schemas.schema_diff.effects import DriftedObject
from tenant_schemas.secret_checks import check_tenant_secret
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant, default_schema_name

KEEP: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """The installation to restore into. `engine` logs in as the migrator."""

    engine: Engine
    migrations: Migrations
    backup_policy: BackupPolicy
    tenant_secret: str = field(repr=False)
    reserved_slugs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The result of a restore. `origin` says whether this installation signed the bundle. `replaced_schema` is kept,
    without write rights, until its `drop_after`; `ids_replaced` counts the user ids that were replaced. `left_out`
    names what the bundle has and the restore did not bring back, and `drift_replaced` the objects of the replaced
    schema that the migrations do not make so.
    """

    tenant: Tenant
    origin: Origin
    rows: int
    replaced_schema: str | None
    ids_replaced: int
    left_out: tuple[str, ...] = ()
    drift_replaced: tuple[DriftedObject, ...] = ()


def tenant_to_replace(destination: Destination, manifest: Manifest) -> Tenant | None:
    """The existing tenant that a restore without a new slug replaces, or None. Raises RestoreRefused if another tenant
    has its slug.
    """
    with destination.engine.connect() as connection:
        return _find_existing(connection, manifest)


def restore(
    destination: Destination,
    bundle: Bundle,
    *,
    slug: str | None = None,
    name: str | None = None,
    users: MissingUsers = MissingUsers.FAIL,
    keep: timedelta = KEEP,
    only_if_gone: bool = False,
) -> Restored:
    """Restore the bundle as the tenant that was backed up, or, with a `slug`, as a new tenant with a new id; commits.
    Raises RestoreError, TenantExists, NameRefused or BackupError, and then nothing is left.

    An existing tenant gets its data back and keeps its current name, status, settings, login role and members. A tenant
    that no longer exists gets those of the bundle. A new tenant gets the current members of the existing one, with
    their current roles: members removed after the backup are not restored. With `only_if_gone` an existing tenant
    is restored only if its schema does not exist.
    """
    check_shared(destination.backup_policy, bundle)
    plan = _plan(destination, bundle.manifest, slug, name)
    engine, migrations = destination.engine, destination.migrations
    drift = _drift_to_replace(destination, bundle.manifest) if plan.replaces_existing else ()
    with (
        staging_schema(engine, migrations, plan.tenant, reason="restoring", password=plan.password),
        engine.begin() as connection,
    ):
        ids, rows = _fill(connection, destination, bundle, plan.tenant, users)
        names = {table.name for table in tables_in_order(driver_of(connection), plan.tenant.schema_name)}
        tenant = replace(plan.tenant, revision=migrations.upgrade_tenant(connection, plan.tenant))
        _note(connection, destination.backup_policy, bundle, ids)
        replaced = None
        if plan.replaces_existing:
            replacement = Replacement(
                secret=destination.tenant_secret,
                keep=keep,
                take_over=_resumption(connection, destination, bundle),
                only_if_gone=only_if_gone,
            )
            replaced = swap(connection, tenant, migrations.roles, replacement)
            tenant = registry.get_tenant_by_id(connection, tenant.id)
        else:
            check_tenant_secret(driver_of(connection), destination.tenant_secret, lock=True)
            if destination.backup_policy.beside and tenant.id != bundle.manifest.tenant.id:
                destination.backup_policy.beside(driver_of(connection))
            _register(connection, destination, bundle, tenant, ids)
        return Restored(
            tenant=tenant,
            origin=bundle.origin,
            rows=rows,
            replaced_schema=replaced,
            ids_replaced=len(ids),
            left_out=left_out(bundle.manifest, names),
            drift_replaced=drift,
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """The tenant after the restore, at the bundle's revision and in an unused schema. `password` is for its new login
    role; None for an existing tenant, which keeps its role.
    """

    tenant: Tenant
    password: str | None = field(repr=False)

    @property
    def replaces_existing(self) -> bool:
        return self.password is None


def _drift_to_replace(destination: Destination, manifest: Manifest) -> tuple[DriftedObject, ...]:
    with destination.engine.connect() as connection:
        existing = _find_existing(connection, manifest)
        return drift_today(connection, destination.migrations, existing) if existing else ()


def _plan(destination: Destination, manifest: Manifest, slug: str | None, name: str | None) -> _Plan:
    with destination.engine.connect() as connection:
        check_prepared(connection, destination.migrations)
        check_tenant_secret(driver_of(connection), destination.tenant_secret)
        check_revisions_known(destination.migrations, manifest)
        existing = _find_existing(connection, manifest) if slug is None else None
    tenant = planned_tenant(destination, manifest, existing, slug, name)
    drop_abandoned_schemas(destination.engine, tenant)
    with destination.engine.connect() as connection:
        tenant = with_free_schema_name(connection, tenant)
        if existing is not None:
            return _Plan(tenant, None)
        check_names_free(connection, tenant)
    return _Plan(tenant, tenant_password(destination.tenant_secret, tenant.id, tenant.login_epoch))


def _find_existing(connection: Connection, manifest: Manifest) -> Tenant | None:
    existing = _find_by_id(connection, manifest)
    if existing is not None:
        return existing
    try:
        other = registry.get_tenant(connection, manifest.tenant.slug)
    except TenantNotFound:
        return None
    raise RestoreRefused(
        f"Slug {other.slug} belongs to another tenant here ({other.id}) than in the bundle ({manifest.tenant.id}), and "
        "a restore never replaces another tenant: restore with another slug (--as)."
    )


def _find_by_id(connection: Connection, manifest: Manifest) -> Tenant | None:
    try:
        return registry.get_tenant_by_id(connection, manifest.tenant.id)
    except TenantNotFound:
        return None


def planned_tenant(
    destination: Destination, manifest: Manifest, existing: Tenant | None, slug: str | None, name: str | None
) -> Tenant:
    """The tenant after the restore, at the bundle's revision. Raises NameRefused, RestoreRefused."""
    backed_up = manifest.tenant
    if existing is not None:
        return replace(existing, schema_name=default_schema_name(existing.slug), revision=backed_up.revision)
    new = new_tenant(
        destination.migrations,
        slug=slug or backed_up.slug,
        name=name or backed_up.name,
        settings=destination.backup_policy.check_settings(backed_up.settings),
        reserved_slugs=destination.reserved_slugs,
    )
    new = replace(new, revision=backed_up.revision)
    if slug:
        return new
    # The dropped tenant's epoch is unknown. A new, higher epoch keeps an old password from becoming valid again.
    with destination.engine.connect() as connection:
        epoch = connection.exec_driver_sql("SELECT floor(extract(epoch FROM clock_timestamp()) / 60)::int").scalar_one()
    return replace(new, id=backed_up.id, status=backed_up.status, login_epoch=epoch)


def check_revisions_known(migrations: Migrations, manifest: Manifest) -> None:
    """Raises RestoreRefused if a revision of the bundle is not in the histories."""
    check_revision_known(migrations, History.TENANT, manifest.tenant.revision)
    check_revision_known(migrations, History.SHARED, manifest.shared_revision)


def check_revision_known(migrations: Migrations, history: History, revision: str) -> None:
    """Raises RestoreRefused if the history has no such revision."""
    try:
        migrations.steps(history, revision)
    except RevisionRefused as error:
        raise RestoreRefused(
            f"The bundle was written by a newer version of this application, or by another one: {error} "
            "Restore it with the version that wrote it."
        ) from None


def check_names_free(connection: Connection, tenant: Tenant) -> None:
    """Raises TenantExists if the slug or the role exists."""
    try:
        registry.get_tenant(connection, tenant.slug)
    except TenantNotFound:
        if role_exists(connection, tenant.role_name):
            raise TenantExists(
                f"Role {tenant.role_name} exists on this server and belongs to no tenant here: "
                "choose another slug, or drop the role."
            ) from None
        return
    raise TenantExists(f"Tenant {tenant.slug!r} exists: choose another slug.")


def _fill(
    connection: Connection, destination: Destination, bundle: Bundle, tenant: Tenant, users: MissingUsers
) -> tuple[Ids, int]:
    """Load and prove the rows. Returns the replaced user ids and the number of rows.

    Recomputed hash chains would hide forged rows. So if ids are replaced, the rows are first loaded and proved with the
    original ids, and rolled back.
    """
    backup_policy, schema_name = destination.backup_policy, tenant.schema_name
    driver = begin_load(connection, destination.migrations, tenant)
    ids = map_users(driver, backup_policy, bundle, schema_name, users)
    if ids:
        with connection.begin_nested() as savepoint:
            map_users(driver, backup_policy, bundle, schema_name, MissingUsers.RECREATE_DISABLED)
            load(connection, backup_policy, bundle, schema_name, {})
            savepoint.rollback()
    return ids, load(connection, backup_policy, bundle, schema_name, ids)


def begin_load(connection: Connection, migrations: Migrations, tenant: Tenant) -> psycopg.Connection[Any]:
    """Prepare the open db transaction to fill a retired schema: as the owner, with the settings of `pin_session`, and
    with a lock on the schema's record. Raises RestoreRefused if the record is gone.
    """
    driver = driver_of(connection)
    set_timeouts(connection)
    pin_session(driver)
    become_owner(connection, migrations.roles)
    lock_retired_schema(driver, tenant.schema_name)
    return driver


def _note(connection: Connection, backup_policy: BackupPolicy, bundle: Bundle, ids: Ids) -> None:
    if backup_policy.note:
        manifest = bundle.manifest
        details = {"takenAt": manifest.taken_at, "of": manifest.tenant.slug, "idsReplaced": len(ids)}
        if manifest.data:
            details |= {"dataAsOf": manifest.data.as_of, "lastChangeAt": manifest.data.last_change_at}
            details |= {"recoveryTarget": manifest.data.recovery_target, "retiredAt": manifest.data.retired_at}
        if bundle.origin is not Origin.OWN:
            details["origin"] = bundle.origin.value
        backup_policy.note(driver_of(connection), "tenant.restore", details)


def _resumption(connection: Connection, destination: Destination, bundle: Bundle) -> Callable[[str], None] | None:
    resume = destination.backup_policy.resume
    if resume is None:
        return None
    return partial(resume, driver_of(connection), is_own=bundle.origin is Origin.OWN)


def _register(connection: Connection, destination: Destination, bundle: Bundle, tenant: Tenant, ids: Ids) -> None:
    """Register the tenant with the current members of the bundle's tenant if that exists, else with the bundle's."""
    origin = _find_by_id(connection, bundle.manifest)
    register(connection, tenant, destination.migrations.roles)
    if origin is None:
        _add_members(connection, destination.backup_policy, bundle, tenant, ids)
    else:
        copy_members(driver_of(connection), destination.backup_policy, origin, tenant)


def _add_members(connection: Connection, backup_policy: BackupPolicy, bundle: Bundle, tenant: Tenant, ids: Ids) -> None:
    changes = {
        "tenant_id": constant(str(tenant.id)),
        "tenant_role": constant(tenant.role_name),
        "user_id": replace_ids(ids),
    }
    for table in member_tables_in(bundle, backup_policy):
        file = find_file(bundle.manifest.shared, table)
        copy_in(driver_of(connection), SHARED_SCHEMA, table, file.columns, shared_lines(bundle, file, changes))
