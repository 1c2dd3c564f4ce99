"""A bundle becomes a tenant: the one that it was taken of, as it was then, or another beside it.

Two db transactions. The first makes an empty schema, which is noted as retired, and is short, since it locks tables of
`shared` against writing. The second does all else: it loads, proves, makes people who are missing, migrates, and takes
the living tenant's place at its very end. So whenever this ends, the tenant is whole, and either restored or untouched.
"""

import time
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, Engine

from tenant_schemas import registry
from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.manifest import Manifest
from tenant_schemas.backup.policy import BackupPolicy
from tenant_schemas.backup.table_io import pin_session
from tenant_schemas.errors import RestoreRefused, RevisionRefused, TenantExists, TenantNotFound
from tenant_schemas.lifecycle.provision import refuse_unprepared, tenant_to_be
from tenant_schemas.migrations.history import History, Migrations, set_timeouts
from tenant_schemas.restore.cutover import register, swap
from tenant_schemas.restore.loader import always, check_shared, copy_in, file_named, load, shared_lines, swap_ids
from tenant_schemas.restore.staging_schema import clear_left_over, hold_retired_schema, in_free_schema, staging_schema
from tenant_schemas.restore.user_mapping import Ids, Users, copy_members, settle_people
from tenant_schemas.roles import become_owner, driver_of, role_exists, tenant_password
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant, default_schema_name

KEEP: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where tenants are restored to: the migrator's engine, and what makes a tenant there."""

    engine: Engine
    migrations: Migrations
    backup_policy: BackupPolicy
    tenant_secret: str = field(repr=False)
    reserved_slugs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What became of a bundle. `replaced_schema` is kept for a while, closed; `ids_replaced` are people's."""

    tenant: Tenant
    rows: int
    replaced_schema: str | None
    ids_replaced: int


def living_tenant(destination: Destination, manifest: Manifest) -> Tenant | None:
    """The tenant that a restore as it was would replace, if there is one. Raises RestoreRefused if another has its
    slug.
    """
    with destination.engine.connect() as connection:
        return _living_tenant(connection, manifest)


def restore(
    destination: Destination,
    bundle: Bundle,
    *,
    slug: str | None = None,
    name: str | None = None,
    users: Users = Users.FAIL,
    keep: timedelta = KEEP,
) -> Restored:
    """Restore the bundle as it was, or with a slug beside, as a tenant of another id. Committed when it returns; raises
    RestoreError, TenantExists, NameRefused or BackupError, and then nothing is left.

    A living tenant stays what its operators made of it since: its name, status, settings, login and members. One that
    is not there comes back with those of the bundle. One beside a living one has the members whom that has today, in
    their roles of today: nobody comes in by an old bundle who was put out since.
    """
    check_shared(destination.backup_policy, bundle)
    plan = _plan(destination, bundle.manifest, slug, name)
    engine, migrations = destination.engine, destination.migrations
    with (
        staging_schema(engine, migrations, plan.tenant, reason="restoring", password=plan.password),
        engine.begin() as connection,
    ):
        ids, rows = _fill(connection, destination, bundle, plan.tenant, users)
        tenant = replace(plan.tenant, revision=migrations.upgrade_tenant(connection, plan.tenant))
        _note(connection, destination.backup_policy, bundle, ids)
        replaced = None
        if plan.is_living:
            replaced = swap(connection, tenant, migrations.roles, secret=destination.tenant_secret, keep=keep)
        else:
            _register(connection, destination, bundle, tenant, ids)
        return Restored(tenant=tenant, rows=rows, replaced_schema=replaced, ids_replaced=len(ids))


@dataclass(frozen=True, slots=True)
class _Plan:
    """The tenant that is to be, at the bundle's revision and in a free schema. A living one has its login already; any
    other gets one with this password.
    """

    tenant: Tenant
    password: str | None = field(repr=False)

    @property
    def is_living(self) -> bool:
        return self.password is None


def _plan(destination: Destination, manifest: Manifest, slug: str | None, name: str | None) -> _Plan:
    with destination.engine.connect() as connection:
        refuse_unprepared(connection, destination.migrations)
        refuse_newer(destination.migrations, manifest)
        living = _living_tenant(connection, manifest) if slug is None else None
    tenant = _tenant_to_be(destination, manifest, living, slug, name)
    clear_left_over(destination.engine, tenant)
    with destination.engine.connect() as connection:
        tenant = in_free_schema(connection, tenant)
        if living is not None:
            return _Plan(tenant, None)
        refuse_taken(connection, tenant)
    return _Plan(tenant, tenant_password(destination.tenant_secret, tenant.id, tenant.login_epoch))


def _living_tenant(connection: Connection, manifest: Manifest) -> Tenant | None:
    living = _tenant_of(connection, manifest)
    if living is not None:
        return living
    try:
        other = registry.get_tenant(connection, manifest.tenant.slug)
    except TenantNotFound:
        return None
    raise RestoreRefused(
        f"{other.slug} is another tenant here ({other.id}) than in the bundle ({manifest.tenant.id}), and a bundle "
        "overwrites no other tenant: restore it beside, with --as and another slug."
    )


def _tenant_of(connection: Connection, manifest: Manifest) -> Tenant | None:
    try:
        return registry.get_tenant_by_id(connection, manifest.tenant.id)
    except TenantNotFound:
        return None


def _tenant_to_be(
    destination: Destination, manifest: Manifest, living: Tenant | None, slug: str | None, name: str | None
) -> Tenant:
    was = manifest.tenant
    if living is not None:
        return replace(living, schema_name=default_schema_name(living.slug), revision=was.revision)
    new = tenant_to_be(
        destination.migrations,
        slug=slug or was.slug,
        name=name or was.name,
        settings=was.settings,
        reserved_slugs=destination.reserved_slugs,
    )
    new = replace(new, revision=was.revision)
    if slug:
        return new
    # Its login may have had any epoch, and a password that was replaced must not come back with it.
    return replace(new, id=was.id, status=was.status, login_epoch=int(time.time()) // 60)


def refuse_newer(migrations: Migrations, manifest: Manifest) -> None:
    """Raises RestoreRefused for a bundle of revisions that are not in the histories."""
    try:
        migrations.steps(History.TENANT, manifest.tenant.revision)
        migrations.steps(History.SHARED, manifest.shared_revision)
    except RevisionRefused as error:
        raise RestoreRefused(f"The bundle is of newer code than this, or of another application: {error}") from None


def refuse_taken(connection: Connection, tenant: Tenant) -> None:
    """Raises TenantExists if the slug or the role is."""
    try:
        registry.get_tenant(connection, tenant.slug)
    except TenantNotFound:
        if role_exists(connection, tenant.role_name):
            raise TenantExists(f"Role {tenant.role_name} exists on this server and is no tenant's here.") from None
        return
    raise TenantExists(f"Tenant {tenant.slug!r} exists.")


def _fill(
    connection: Connection, destination: Destination, bundle: Bundle, tenant: Tenant, users: Users
) -> tuple[Ids, int]:
    """Load and prove it all. Returns the people's ids that were replaced, and the number of rows.

    Chains that are made anew would hide what was forged in them, so before it all is proved with the ids as they were.
    """
    backup_policy, schema_name = destination.backup_policy, tenant.schema_name
    driver = begin_filling(connection, destination.migrations, tenant)
    ids = settle_people(driver, backup_policy, bundle, schema_name, users)
    if ids:
        with connection.begin_nested() as savepoint:
            settle_people(driver, backup_policy, bundle, schema_name, Users.RECREATE_DISABLED)
            load(connection, backup_policy, bundle, schema_name, {})
            savepoint.rollback()
    return ids, load(connection, backup_policy, bundle, schema_name, ids)


def begin_filling(connection: Connection, migrations: Migrations, tenant: Tenant) -> psycopg.Connection[Any]:
    """Start the db transaction that fills a retired schema: as the owner, pinned, and holding the retired's note."""
    driver = driver_of(connection)
    set_timeouts(connection)
    pin_session(driver)
    become_owner(connection, migrations.roles)
    hold_retired_schema(driver, tenant.schema_name)
    return driver


def _note(connection: Connection, backup_policy: BackupPolicy, bundle: Bundle, ids: Ids) -> None:
    if backup_policy.note:
        told = {"takenAt": bundle.manifest.taken_at, "of": bundle.manifest.tenant.slug, "idsReplaced": len(ids)}
        backup_policy.note(driver_of(connection), "tenant.restore", told)


def _register(connection: Connection, destination: Destination, bundle: Bundle, tenant: Tenant, ids: Ids) -> None:
    """With the members of the bundle's tenant as they are today if it is here, else with the bundle's."""
    origin = _tenant_of(connection, bundle.manifest)
    register(connection, tenant, destination.migrations.roles)
    if origin is None:
        _add_members(connection, destination.backup_policy, bundle, tenant, ids)
    else:
        copy_members(driver_of(connection), destination.backup_policy, origin, tenant)


def _add_members(connection: Connection, backup_policy: BackupPolicy, bundle: Bundle, tenant: Tenant, ids: Ids) -> None:
    file = file_named(bundle.manifest.shared, backup_policy.members)
    changes = {"tenant_id": always(str(tenant.id)), "tenant_role": always(tenant.role_name), "user_id": swap_ids(ids)}
    lines = shared_lines(bundle, file, changes)
    copy_in(driver_of(connection), SHARED_SCHEMA, backup_policy.members, file.columns, lines)
