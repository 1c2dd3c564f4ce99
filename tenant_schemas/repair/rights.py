"""The owner and the privileges of a tenant's schema and its objects, and the search_path of its functions: as the
history makes them, and as they are.

Both are read with the schema bound, so that PostgreSQL names its objects without the schema. Objects that only one of
the two has are left alone: they are drift, which `migration_status --drift` shows.
"""

import secrets
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from psycopg import sql
from sqlalchemy import Connection

from tenant_schemas.errors import RepairRefused
from tenant_schemas.lifecycle.provision import make_schema
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.repair.changes import Changes
from tenant_schemas.roles import ServiceRoles, become_owner, is_superuser, send, stop_being_owner
from tenant_schemas.search_path import LEAVE_SCHEMA, bind_migration, pinning
from tenant_schemas.tenant import Tenant

_TENANT: Final = "the tenant"
_PUBLIC: Final = "PUBLIC"

_RIGHTS: Final = """
    SELECT l.kind, l.name, l.part, CASE WHEN a.grantee = 0 THEN 'PUBLIC'
        WHEN r.rolname = %(role)s THEN 'the tenant' ELSE r.rolname END, a.privilege_type, a.is_grantable
    FROM (
        SELECT 'SCHEMA', '', '', coalesce(nspacl, acldefault('n', nspowner))
        FROM pg_namespace WHERE nspname = %(schema)s
        UNION ALL
        SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, oid::regclass::text, '',
            coalesce(relacl, acldefault((CASE relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", relowner))
        FROM pg_class WHERE relnamespace = %(schema)s::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
        UNION ALL
        SELECT 'TABLE', c.oid::regclass::text, a.attname, a.attacl FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = %(schema)s::regnamespace AND a.attacl IS NOT NULL
        UNION ALL
        SELECT 'ROUTINE', oid::regprocedure::text, '', coalesce(proacl, acldefault('f', proowner))
        FROM pg_proc WHERE pronamespace = %(schema)s::regnamespace
        UNION ALL
        SELECT 'TYPE', oid::regtype::text, '', coalesce(typacl, acldefault('T', typowner)) FROM pg_type
        WHERE typnamespace = %(schema)s::regnamespace AND typtype IN ('d', 'e', 'r') AND typelem = 0
    ) AS l (kind, name, part, acl)
    CROSS JOIN LATERAL aclexplode(l.acl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
    WHERE a.grantee = 0 OR r.rolname IS NOT NULL"""
_SETTINGS: Final = """
    SELECT oid::regprocedure::text, coalesce(proconfig, '{}') FROM pg_proc
    WHERE pronamespace = %(schema)s::regnamespace"""
# A sequence of a column, and a type of a table, follow their table.
_FOREIGN_OBJECTS: Final = """
    SELECT o.kind, o.name FROM pg_namespace n CROSS JOIN LATERAL (
        SELECT 0, 'SCHEMA', quote_ident(n.nspname), n.nspowner
        UNION ALL
        SELECT 1, CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
            WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, c.oid::regclass::text, relowner
        FROM pg_class c WHERE relnamespace = n.oid AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                AND d.deptype IN ('a', 'i') AND d.refclassid = 'pg_class'::regclass)
        UNION ALL
        SELECT 2, 'ROUTINE', oid::regprocedure::text, proowner FROM pg_proc WHERE pronamespace = n.oid
        UNION ALL
        SELECT 3, 'TYPE', oid::regtype::text, typowner FROM pg_type
        WHERE typnamespace = n.oid AND typtype IN ('d', 'e', 'r') AND typrelid = 0 AND typelem = 0
    ) AS o (place, kind, name, owner)
    WHERE n.nspname = %(schema)s AND o.owner <> to_regrole(%(owner)s) ORDER BY o.place, o.name"""


class Right(NamedTuple):
    """One privilege of one role. `part` is the column, and the tenant's role and schema have no name."""

    kind: str
    name: str
    part: str
    grantee: str
    privilege: str
    is_grantable: bool


@dataclass(frozen=True, slots=True)
class Rights:
    """The privileges in a schema, and the settings of its functions by their names."""

    granted: frozenset[Right]
    settings: Mapping[str, Sequence[str]]


def expected_rights(connection: Connection, migrations: Migrations, tenant: Tenant) -> Rights:
    """What the history makes at the tenant's revision, read from a schema that is rolled back to a savepoint. Blocks
    writes to referenced tables of `shared` for a fraction of a second. The caller sets the timeouts.
    """
    name = f"new_{secrets.token_hex(8)}"
    new = replace(tenant, schema_name=name, role_name=name)
    savepoint = connection.begin_nested()
    try:
        send(connection, sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name)).as_string())
        become_owner(connection, migrations.roles)
        send(connection, "ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM PUBLIC")
        make_schema(connection, migrations, new)
        made = _rights_of(connection, new)
    finally:
        savepoint.rollback()
    settings = {each: [one.replace(name, "{}") for one in settings] for each, settings in made.settings.items()}
    return Rights(made.granted, settings)


def repair_rights(changes: Changes, tenant: Tenant, roles: ServiceRoles, expected: Rights, ours: Set[str]) -> None:
    """Give the schema's objects their privileges and settings, as the owner. Extra privileges of PUBLIC and of the
    roles in `ours` are revoked, those of other roles stay. Commits nothing.
    """
    become_owner(changes.connection, roles)
    bind_migration(changes.connection, tenant.schema_name)
    found = _rights_of(changes.connection, tenant)
    _repair_grants(changes, tenant, expected.granted, found.granted, ours)
    _repair_settings(changes, tenant, expected.settings, found.settings)
    changes.connection.exec_driver_sql(LEAVE_SCHEMA)
    stop_being_owner(changes.connection)


def _rights_of(connection: Connection, tenant: Tenant) -> Rights:
    """Needs the schema bound."""
    names = {"schema": tenant.schema_name, "role": tenant.role_name}
    granted = frozenset(Right(*row) for row in connection.exec_driver_sql(_RIGHTS, names))
    rows = connection.exec_driver_sql(_SETTINGS, names)
    return Rights(granted, {str(name): list(settings) for name, settings in rows})


def repair_owners(changes: Changes, tenant: Tenant, roles: ServiceRoles) -> None:
    """Give the schema and its objects to the owner. Commits nothing. Raises RepairRefused if the login is no superuser
    and another role owns an object.
    """
    connection = changes.connection
    connection.exec_driver_sql(LEAVE_SCHEMA)
    names = {"schema": tenant.schema_name, "owner": roles.owner}
    found = [f"{kind} {name}" for kind, name in connection.exec_driver_sql(_FOREIGN_OBJECTS, names)]
    if found and not is_superuser(connection):
        raise RepairRefused(
            f"{found[0]} and {len(found) - 1} other objects do not belong to {roles.owner}, and only a superuser can "
            "give them to it: run it with --superuser-url. Nothing was changed."
        )
    owner, schema = (sql.Identifier(name).as_string() for name in (roles.owner, tenant.schema_name))
    for each in found:
        changes.run(f"ALTER {each} OWNER TO {owner}")
    may_use = "SELECT has_schema_privilege(%(owner)s, %(schema)s, 'USAGE')"
    if not connection.exec_driver_sql(may_use, names).scalar_one():
        become_owner(connection, roles)
        changes.run(f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {owner}")
        stop_being_owner(connection)


def _repair_grants(changes: Changes, tenant: Tenant, expected: Set[Right], found: Set[Right], ours: Set[str]) -> None:
    """A right that differs in its grant option is in both differences: it is revoked and granted again."""
    known = {(right.kind, right.name) for right in found} & {(right.kind, right.name) for right in expected}
    for right in sorted(found - expected):
        if (right.kind, right.name) in known and right.grantee in ours | {_TENANT, _PUBLIC}:
            changes.run(f"REVOKE {_what(right, tenant)} FROM {_whom(right, tenant)} CASCADE")
    for right in sorted(expected - found):
        if (right.kind, right.name) in known:
            changes.run(f"GRANT {_what(right, tenant)} TO {_whom(right, tenant)}")


def _what(right: Right, tenant: Tenant) -> str:
    column = f" ({sql.Identifier(right.part).as_string()})" if right.part else ""
    name = right.name or sql.Identifier(tenant.schema_name).as_string()
    return f"{right.privilege}{column} ON {right.kind} {name}"


def _whom(right: Right, tenant: Tenant) -> str:
    if right.grantee == _PUBLIC:
        return _PUBLIC
    return sql.Identifier(tenant.role_name if right.grantee == _TENANT else right.grantee).as_string()


def _repair_settings(
    changes: Changes, tenant: Tenant, expected: Mapping[str, Sequence[str]], found: Mapping[str, Sequence[str]]
) -> None:
    """The settings of functions are search_paths, and rarely others."""
    quoted = changes.connection.exec_driver_sql("SELECT quote_ident(%s)", (tenant.schema_name,)).scalar_one()
    for name in sorted(expected.keys() & found.keys()):
        wanted = [each.replace("{}", quoted) for each in expected[name]]
        if sorted(wanted) == sorted(found[name]):
            continue
        changes.run(f"ALTER ROUTINE {name} RESET ALL")
        for setting, _, value in (each.partition("=") for each in wanted):
            if setting == "search_path":
                changes.run(pinning(name, tenant.schema_name))
            else:
                changes.run(f"ALTER ROUTINE {name} SET {setting} TO {sql.Literal(value).as_string()}")
