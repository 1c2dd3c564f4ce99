"""Repairs tenants after a change by hand or a restore of the database: each has again the role, the login, the owner,
the privileges and the functions' paths that the registry and the history say.

It changes no row of a tenant and drops nothing. What else differs from the history is left to `migration_status
--drift`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from tenant_schemas.errors import RepairRefused, SchemaMissing
from tenant_schemas.migrations.history import Migrations, current_revision
from tenant_schemas.registry import all_tenants, lock_tenant_by_slug
from tenant_schemas.repair.adoption import Adoption, adopt
from tenant_schemas.repair.changes import Changes
from tenant_schemas.repair.rights import Rights, expected_rights, repair_owners, repair_rights
from tenant_schemas.repair.role import repair_role
from tenant_schemas.roles import driver_of, tenant_logins, tenant_password
from tenant_schemas.secret_checks import check_tenant_secret
from tenant_schemas.tenant import Tenant
from tenant_schemas.visits import missing_schemas

_RESTORE: Final = (
    "If it was renamed by hand, run `python -m scripts.repair_tenant {} --adopt SCHEMA`. Otherwise restore the tenant."
)


@dataclass(frozen=True, slots=True)
class Repaired:
    """The statements that repaired a tenant, none if nothing differed. With a `problem` something is left to do."""

    tenant: Tenant
    changes: list[str]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Repairer:
    """How to repair: `can_log_in` tries the password that the registry says, on a connection of its own."""

    migrations: Migrations
    tenant_secret: str = field(repr=False)
    can_log_in: Callable[[Tenant], bool]
    _expected: dict[str, Rights] = field(default_factory=dict)

    def repair(self, connection: Connection, slug: str, adoption: Adoption | None = None) -> Repaired:
        """Repair a tenant in the open db transaction of the migrator or of a superuser; commits nothing. Locks the
        tenant's row, and the secret against a rotation. The caller sets the timeouts. A tenant whose schema is gone
        gets its role only.

        Raises TenantNotFound, RepairRefused, SecretRefused and psycopg's errors.
        """
        check_tenant_secret(driver_of(connection), self.tenant_secret, lock=True)
        changes = Changes(connection)
        if adoption is not None:
            adopt(changes, self.migrations, slug, adoption)
        tenant = lock_tenant_by_slug(connection, slug)
        password = tenant_password(self.tenant_secret, tenant.id, tenant.login_epoch)
        repair_role(changes, tenant, self.migrations.roles, password, self.can_log_in)
        if missing_schemas(connection, [tenant]):
            return Repaired(tenant, changes.shown, f"{SchemaMissing.of(tenant)} {_RESTORE.format(slug)}")
        self._repair_schema(changes, tenant)
        return Repaired(tenant, changes.shown)

    def _repair_schema(self, changes: Changes, tenant: Tenant) -> None:
        connection, roles = changes.connection, self.migrations.roles
        repair_owners(changes, tenant, roles)
        found = current_revision(connection, tenant.schema_name)
        if found != tenant.revision:
            raise RepairRefused(
                f"Schema {tenant.schema_name} is at revision {found or 'none'}, and the registry says "
                f"{tenant.revision}: find the cause, and restore the tenant or correct its row. Nothing was changed."
            )
        if tenant.revision not in self._expected:
            self._expected[tenant.revision] = expected_rights(connection, self.migrations, tenant)
        service = (roles.migrator, roles.app, roles.backup, roles.relay, roles.tenants, roles.pool, roles.pooler)
        logins = {each.role_name for each in all_tenants(connection)}
        ours = logins.union(service, tenant_logins(connection, roles))
        repair_rights(changes, tenant, roles, self._expected[tenant.revision], ours)
