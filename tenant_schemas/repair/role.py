"""A tenant's login role: its attributes, password, defaults and memberships, as the registry says."""

from collections.abc import Callable
from typing import Any, Final

from psycopg import sql
from sqlalchemy import Connection, Row

from tenant_schemas.repair.changes import Changes
from tenant_schemas.roles import (
    HAS_MEMBERSHIP_OPTIONS,
    ServiceRoles,
    create_tenant_role,
    driver_of,
    grant_administration,
    is_superuser,
    may_log_in,
    role_exists,
    set_tenant_login,
)
from tenant_schemas.tenant import Tenant

_ATTRIBUTES: Final = """
    SELECT rolcanlogin AS "LOGIN", rolinherit AS "INHERIT", NOT rolsuper AS "NOSUPERUSER",
        NOT rolcreaterole AS "NOCREATEROLE", NOT rolcreatedb AS "NOCREATEDB", NOT rolreplication AS "NOREPLICATION",
        NOT rolbypassrls AS "NOBYPASSRLS", coalesce(rolvaliduntil > now(), true) AS "VALID UNTIL 'infinity'",
        rolconnlimit <> 0 AS "CONNECTION LIMIT -1"
    FROM pg_catalog.pg_roles WHERE rolname = %s"""
_HAS_OWN_DEFAULTS: Final = """
    SELECT coalesce(array_agg(setting) = ARRAY['search_path=' || quote_ident(%s) || ', pg_temp'], false)
    FROM pg_catalog.pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS setting
    WHERE s.setrole = %s::regrole AND s.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database
        WHERE datname = current_database()))"""
# From 16 on each membership has options and a grantor of its own.
_MEMBERSHIPS: Final = """
    SELECT g.rolname AS role, m.rolname AS member, a.admin_option, {} AS options, {} AS grantor
    FROM pg_catalog.pg_auth_members a JOIN pg_catalog.pg_roles g ON g.oid = a.roleid
    JOIN pg_catalog.pg_roles m ON m.oid = a.member JOIN pg_catalog.pg_roles r ON r.oid = a.grantor
    WHERE %(role)s IN (g.rolname, m.rolname) ORDER BY 1, 2, 5"""


def repair_role(
    changes: Changes, tenant: Tenant, roles: ServiceRoles, password: str, can_log_in: Callable[[Tenant], bool]
) -> None:
    """Create the role, or set right what differs. `can_log_in` tries the password that the registry says. Commits
    nothing. Raises psycopg's errors, for example if only a superuser may change an attribute.
    """
    if not role_exists(changes.connection, tenant.role_name):
        create_tenant_role(changes.connection, tenant, password, roles)
        changes.note(f"CREATE ROLE {_quoted(tenant.role_name)} LOGIN: with password, search_path and memberships")
    else:
        _repair_attributes(changes, tenant)
        _repair_login(changes, tenant, password, can_log_in)
        _repair_memberships(changes, tenant, roles)
    _repair_administration(changes, tenant, roles)


def _repair_attributes(changes: Changes, tenant: Tenant) -> None:
    found = changes.connection.exec_driver_sql(_ATTRIBUTES, (tenant.role_name,)).mappings().one()
    lacking = [attribute for attribute, is_right in found.items() if not is_right]
    if lacking:
        changes.run(f"ALTER ROLE {_quoted(tenant.role_name)} {' '.join(lacking)}")


def _repair_login(changes: Changes, tenant: Tenant, password: str, can_log_in: Callable[[Tenant], bool]) -> None:
    name = _quoted(tenant.role_name)
    is_own = changes.connection.exec_driver_sql(_HAS_OWN_DEFAULTS, (tenant.schema_name, name)).scalar_one()
    if not is_own or not can_log_in(tenant):
        set_tenant_login(changes.connection, tenant, password)
        path = f"search_path TO {_quoted(tenant.schema_name)}, pg_temp"
        changes.note(f"ALTER ROLE {name} PASSWORD of epoch {tenant.login_epoch}, RESET ALL, SET {path}")


def _repair_memberships(changes: Changes, tenant: Tenant, roles: ServiceRoles) -> None:
    """First revoke what is too much: that may be a membership with an option too many."""
    wanted = _wanted_memberships(changes.connection, tenant, roles)
    for row in _memberships(changes.connection, tenant):
        if row.member == roles.migrator:
            continue  # It administers the role.
        options = wanted.get((row.role, row.member))
        if options is None or row.admin_option or (row.options and row.options != options):
            changes.run(_revocation(row))
    found = {(row.role, row.member) for row in _memberships(changes.connection, tenant)}
    for (role, member), options in wanted.items():
        if (role, member) not in found:
            changes.run(f"GRANT {_quoted(role)} TO {_quoted(member)}{' WITH ' if options else ''}{options}")


def _repair_administration(changes: Changes, tenant: Tenant, roles: ServiceRoles) -> None:
    """Only a superuser can give the migrator a role that another has created, and before 16 the migrator too."""
    rows = _memberships(changes.connection, tenant)
    if any(row.member == roles.migrator and row.admin_option for row in rows):
        return
    is_old = driver_of(changes.connection).info.server_version < HAS_MEMBERSHIP_OPTIONS
    if is_old or is_superuser(changes.connection):
        grant_administration(changes.connection, roles, [tenant.role_name])
        changes.note(f"GRANT {_quoted(tenant.role_name)} TO {roles.migrator} WITH ADMIN OPTION")


def _wanted_memberships(connection: Connection, tenant: Tenant, roles: ServiceRoles) -> dict[tuple[str, str], str]:
    """The options of each membership by role and member. The pool takes the role and inherits nothing of it."""
    has_options = driver_of(connection).info.server_version >= HAS_MEMBERSHIP_OPTIONS
    wanted = {(roles.tenants, tenant.role_name): "INHERIT TRUE, SET TRUE" if has_options else ""}
    if may_log_in(connection, roles.pool):
        wanted[tenant.role_name, roles.pool] = "INHERIT FALSE, SET TRUE" if has_options else ""
    return wanted


def _memberships(connection: Connection, tenant: Tenant) -> list[Row[Any]]:
    options, grantor = "''", "NULL"
    if driver_of(connection).info.server_version >= HAS_MEMBERSHIP_OPTIONS:
        options = "format('INHERIT %%s, SET %%s', upper(a.inherit_option::text), upper(a.set_option::text))"
        grantor = "r.rolname"
    query = _MEMBERSHIPS.format(options, grantor)
    return list(connection.exec_driver_sql(query, {"role": tenant.role_name}))


def _revocation(membership: Row[Any]) -> str:
    by = f" GRANTED BY {_quoted(membership.grantor)}" if membership.grantor else ""
    return f"REVOKE {_quoted(membership.role)} FROM {_quoted(membership.member)}{by} CASCADE"


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string()
