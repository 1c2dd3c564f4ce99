"""Restores the tenants of an installation whose schema shared is restored: each whose schema does not exist, from its
newest bundle. A tenant that fails is an outcome, and the others are restored.

A tenant that has its schema is not touched. So a run that was interrupted can be repeated, and goes on.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from tenant_schemas import registry
from tenant_schemas.backup.bundle import open_bundle
from tenant_schemas.backup.bundle_set import BundleSet, ChosenBundle
from tenant_schemas.backup.signature import BundleKeys
from tenant_schemas.errors import RestoreRefused, TenancyError
from tenant_schemas.migrations.history import Migrations, first_line, set_timeouts
from tenant_schemas.restore.restore import Destination, restore
from tenant_schemas.restore.user_mapping import MissingUsers
from tenant_schemas.roles import create_tenant_role, role_exists, set_tenant_login, tenant_password
from tenant_schemas.tenant import Tenant
from tenant_schemas.visits import missing_schemas


class Status(StrEnum):
    """What became of a tenant: restored; it was here already; failed; or its bundle was left out, because the tenant
    was dropped before the bundle of the schema shared was taken.
    """

    RESTORED = "restored"
    HERE = "here"
    FAILED = "failed"
    LEFT_OUT = "left out"


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantOutcome:
    """The outcome for one tenant, with the bundle and the time of its data."""

    slug: str
    status: Status
    bundle: Path | None = None
    data_as_of: datetime | None = None
    rows: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """Where the tenants come from: the bundles, the keys and the identity file that open them, and the time of the
    bundle of the schema shared.
    """

    bundles: BundleSet
    keys: BundleKeys
    identity_file: Path | None
    shared_taken_at: datetime


def restore_tenants(destination: Destination, origins: Origins) -> Iterator[TenantOutcome]:
    """Restore each tenant of the registry whose schema does not exist, with its login role; commits each. Yields the
    outcomes, at last those of bundles whose tenant is not in the registry.
    """
    with destination.engine.connect() as connection:
        tenants = registry.all_tenants(connection)
        gone = missing_schemas(connection, tenants)
    for tenant in tenants:
        if tenant.schema_name in gone:
            yield _restore_tenant(destination, origins, tenant)
        else:
            yield TenantOutcome(slug=tenant.slug, status=Status.HERE)
    known = {tenant.id for tenant in tenants}
    unknown = (chosen for tenant_id, chosen in origins.bundles.tenants.items() if tenant_id not in known)
    for chosen in sorted(unknown, key=lambda each: each.folder):
        yield _unknown_tenant(origins, chosen)


def _restore_tenant(destination: Destination, origins: Origins, tenant: Tenant) -> TenantOutcome:
    chosen = origins.bundles.tenants.get(tenant.id)
    outcome = TenantOutcome(slug=tenant.slug, status=Status.FAILED)
    if chosen is not None:
        data = chosen.manifest.data
        as_of = data.as_of if data else chosen.manifest.taken_at
        outcome = replace(outcome, bundle=chosen.folder, data_as_of=as_of)
    try:
        folder = _folder_of(origins, tenant, chosen)
        with destination.engine.begin() as connection:
            set_timeouts(connection)
            ensure_tenant_login(connection, destination.migrations, tenant, destination.tenant_secret)
        bundle = open_bundle(folder, origins.keys, origins.identity_file)
        restored = restore(destination, bundle, users=MissingUsers.RECREATE_DISABLED, only_if_gone=True)
    except (TenancyError, SQLAlchemyError, psycopg.Error, OSError) as error:
        return replace(outcome, error=first_line(error))
    return replace(outcome, status=Status.RESTORED, rows=restored.rows)


def _folder_of(origins: Origins, tenant: Tenant, chosen: ChosenBundle | None) -> Path:
    """Raises RestoreRefused if there is no bundle, or its newest one can't be read."""
    fault = chosen.fault if chosen else origins.bundles.unread.get(tenant.slug)
    if chosen is None or fault:
        raise RestoreRefused(fault or "The folder has no bundle of this tenant: put one there and run it again.")
    return chosen.folder


def ensure_tenant_login(connection: Connection, migrations: Migrations, tenant: Tenant, tenant_secret: str) -> None:
    """Create the tenant's login role, or give the existing one its password, its search_path and the group of all
    tenants, as the migrator. Commits nothing.
    """
    password = tenant_password(tenant_secret, tenant.id, tenant.login_epoch)
    if not role_exists(connection, tenant.role_name):
        create_tenant_role(connection, tenant, password, migrations.roles)
        return
    role, group = sql.Identifier(tenant.role_name), sql.Identifier(migrations.roles.tenants)
    for statement in (sql.SQL("ALTER ROLE {} LOGIN").format(role), sql.SQL("GRANT {} TO {}").format(group, role)):
        connection.exec_driver_sql(statement.as_string())
    set_tenant_login(connection, tenant, password)


def _unknown_tenant(origins: Origins, chosen: ChosenBundle) -> TenantOutcome:
    manifest = chosen.manifest
    left_out = TenantOutcome(slug=manifest.tenant.slug, status=Status.LEFT_OUT, bundle=chosen.folder)
    if manifest.taken_at <= origins.shared_taken_at:
        return left_out
    error = (
        "The tenant is not in the bundle of the schema shared, which is older. Restore it alone: "
        f"`python -m scripts.restore_tenant {chosen.folder} --users recreate-disabled`."
    )
    return replace(left_out, status=Status.FAILED, error=error)
