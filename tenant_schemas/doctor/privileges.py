"""Who has which privilege. Every entry of every access list is checked; an entry that no rule allows is a finding."""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Row

from tenant_schemas.doctor.finding import Finding, Installation, error
from tenant_schemas.lifecycle.retired_schemas import list_retired_schemas
from tenant_schemas.migrations.history import VERSION_TABLE
from tenant_schemas.roles import (
    MONITORING_FUNCTIONS,
    POOLER_SCHEMA,
    REVOKED_COLUMNS,
    REVOKED_FUNCTIONS,
    ServiceRoles,
)
from tenant_schemas.tenant import SHARED_SCHEMA

_RUN_CREATE_ROLES = "Run `python -m scripts.create_roles` again."
_GRANTS = """
    WITH ours AS (
        SELECT oid, nspname, nspacl, nspowner FROM pg_namespace
        WHERE nspname = ANY(%(schemas)s) OR nspname IN ('shared', 'public', 'pgbouncer')
    ), lists (schema_name, kind, name, acl) AS (
        SELECT NULL, 'database', d.datname::text, coalesce(d.datacl, acldefault('d', d.datdba))
        FROM pg_database d WHERE d.datname = current_database()
        UNION ALL
        SELECT n.nspname, 'schema', n.nspname, coalesce(n.nspacl, acldefault('n', n.nspowner)) FROM ours n
        UNION ALL
        SELECT n.nspname, 'relation', c.relname,
            coalesce(c.relacl, acldefault((CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", c.relowner))
        FROM pg_class c JOIN ours n ON n.oid = c.relnamespace WHERE c.relkind NOT IN ('i', 'I', 'c', 't')
        UNION ALL
        SELECT n.nspname, 'column', c.relname || '.' || a.attname, a.attacl
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN ours n ON n.oid = c.relnamespace
        WHERE a.attacl IS NOT NULL
        UNION ALL
        SELECT n.nspname, 'function', p.oid::regprocedure::text, coalesce(p.proacl, acldefault('f', p.proowner))
        FROM pg_proc p JOIN ours n ON n.oid = p.pronamespace
        -- `objects` finds the extension itself.
        WHERE NOT EXISTS (SELECT FROM pg_depend d
            WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
    )
    SELECT l.schema_name, l.kind, l.name, coalesce(r.rolname, 'PUBLIC') AS grantee, a.privilege_type AS privilege,
        a.is_grantable AND a.grantee <> a.grantor AS is_grantable
    FROM lists l CROSS JOIN LATERAL aclexplode(l.acl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
    WHERE a.grantee = 0 OR (r.rolname <> %(owner)s AND NOT coalesce(r.rolsuper, false))"""

_READ = {"schema": {"USAGE"}, "relation": {"SELECT"}, "column": {"SELECT"}, "function": {"EXECUTE"}}
_READ_WRITE = {
    **_READ,
    "relation": {"SELECT", "INSERT", "UPDATE", "DELETE"},
    "column": {"SELECT", "INSERT", "UPDATE"},
}
_NOTHING: dict[str, set[str]] = {}


def check(installation: Installation) -> Iterator[Finding]:
    role_of = {tenant.schema_name: tenant.role_name for tenant in installation.tenants}
    for grant in installation.rows(_GRANTS, schemas=installation.tenant_schemas, owner=installation.roles.owner):
        if not _is_allowed(installation, grant, role_of.get(grant.schema_name)):
            yield _finding(grant)
    yield from _check_defaults(installation)
    yield from _check_outside_schemas(installation)
    yield from _check_catalogue(installation)
    yield from _check_initial(installation)


def _is_allowed(installation: Installation, grant: Row[Any], tenant_role: str | None) -> bool:
    """The rules. `tenant_role` is the login of the tenant to which the schema belongs."""
    roles = installation.roles
    if grant.is_grantable:
        return False
    if grant.kind == "database":
        connecting = {roles.migrator, roles.app, roles.backup, roles.relay, roles.tenants, roles.pooler}
        connecting |= {roles.pool} if installation.shared_logins else set()
        return grant.privilege == "CONNECT" and grant.grantee in connecting
    if grant.schema_name == "public":
        return bool(grant.grantee == "pg_database_owner")
    if grant.schema_name == POOLER_SCHEMA:
        return grant.grantee == roles.pooler and grant.privilege in _READ[grant.kind]
    if grant.schema_name != SHARED_SCHEMA:
        return grant.grantee == tenant_role and grant.privilege in _READ[grant.kind]
    return grant.privilege in _allowed_on_shared(roles, grant).get(grant.kind, set())


def _allowed_on_shared(roles: ServiceRoles, grant: Row[Any]) -> Mapping[str, set[str]]:
    """The privileges of the grant's role on `shared`, by kind of object."""
    if grant.grantee == roles.app:
        # Only the migrator writes the registry and the revision of `shared`.
        return _READ if grant.name in ("tenants", VERSION_TABLE) else _READ_WRITE
    if grant.grantee == roles.relay:  # Of the tables it reads the registry only.
        return _READ if grant.kind in ("schema", "function") or grant.name == "tenants" else _NOTHING
    return _READ if grant.grantee == roles.tenants else _NOTHING


def _finding(grant: Row[Any]) -> Finding:
    name = grant.name if grant.kind in ("database", "schema", "function") else f"{grant.schema_name}.{grant.name}"
    what = f"{grant.grantee} has {grant.privilege}" + (" WITH GRANT OPTION" if grant.is_grantable else "")
    where = f"{grant.kind} {name}"
    check = "public_privilege" if grant.grantee == "PUBLIC" else "privilege"
    if grant.kind == "column":
        table, _, column = name.rpartition(".")
        return error(check, where, what, f"REVOKE {grant.privilege} ({column}) ON {table} FROM {grant.grantee};")
    kind = "TABLE" if grant.kind == "relation" else grant.kind.upper()
    return error(check, where, what, f"REVOKE {grant.privilege} ON {kind} {name} FROM {grant.grantee};")


def _check_defaults(installation: Installation) -> Iterator[Finding]:
    """New objects of the owner are granted to no other role, and no other role has default privileges."""
    query = """
        SELECT pg_describe_object('pg_default_acl'::regclass, d.oid, 0) AS name,
            d.defaclrole = to_regrole(%(owner)s) AND d.defaclnamespace = 0 AND d.defaclobjtype = 'f' AS is_ours,
            (SELECT bool_and(a.grantee = d.defaclrole) FROM aclexplode(d.defaclacl) a) AS is_closed
        FROM pg_default_acl d"""
    rows = installation.rows(query, owner=installation.roles.owner)
    if not any(row.is_ours for row in rows):
        what = "PUBLIC may execute every function that the owner creates"
        yield error("default_privileges", f"role {installation.roles.owner}", what, _RUN_CREATE_ROLES)
    for row in rows:
        if not (row.is_ours and row.is_closed):
            what = "new objects are granted to other roles by default"
            remedy = "Revoke that: ALTER DEFAULT PRIVILEGES FOR ROLE … REVOKE …;"
            yield error("default_privileges", row.name, what, remedy)


def _check_outside_schemas(installation: Installation) -> Iterator[Finding]:
    """Objects that logins own, and privileges that they have outside of the installation's schemas (pg_shdepend)."""
    query = """
        SELECT r.rolname, d.deptype, coalesce(pg_describe_object(d.classid, d.objid, 0), 'an unknown object') AS name
        FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid
        LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
        LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
        LEFT JOIN pg_namespace n ON n.oid = coalesce(c.relnamespace, p.pronamespace)
            OR (d.classid = 'pg_namespace'::regclass AND n.oid = d.objid)
        WHERE d.refclassid = 'pg_authid'::regclass AND r.rolname = ANY(%(names)s)
            AND d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
            AND (d.deptype = 'o' OR (d.deptype = 'a'
                AND d.classid NOT IN ('pg_database'::regclass, 'pg_default_acl'::regclass)
                AND NOT coalesce(n.nspname = ANY(%(schemas)s), false)))
        GROUP BY 1, 2, 3"""
    roles = installation.roles
    names = [roles.app, roles.relay, roles.tenants, roles.pool, *installation.tenant_roles]
    # A staging schema grants privileges to its future tenant before the registry names it.
    staging = [
        retired.schema_name for retired in list_retired_schemas(installation.connection) if retired.reason != "replaced"
    ]
    schemas = [*installation.tenant_schemas, *staging, SHARED_SCHEMA, "public"]
    for row in installation.rows(query, names=names, schemas=schemas):
        if row.deptype == "o":
            remedy = f"ALTER {row.name} OWNER TO {installation.roles.owner}; or drop it."
            yield error("owns", f"role {row.rolname}", f"it owns {row.name}", remedy)
        else:
            remedy = f"REVOKE ALL ON {row.name} FROM {row.rolname};"
            yield error("privilege_elsewhere", f"role {row.rolname}", f"it has privileges on {row.name}", remedy)


def _check_catalogue(installation: Installation) -> Iterator[Finding]:
    """Objects of the catalogue that PUBLIC may use although `revoke_public_privileges` revoked that."""
    functions = [name for query in (REVOKED_FUNCTIONS, MONITORING_FUNCTIONS) for (name,) in installation.rows(query)]
    query = """
        WITH lists (name, acl, closed) AS (
            SELECT p.oid::regprocedure::text, coalesce(p.proacl, acldefault('f', p.proowner)), 'EXECUTE'
            FROM pg_proc p WHERE p.oid = ANY(%(functions)s::regprocedure[])
            UNION ALL
            SELECT c.relname::text, c.relacl, 'SELECT' FROM pg_class c WHERE c.oid = 'pg_catalog.pg_class'::regclass
            UNION ALL
            SELECT 'language ' || l.lanname, coalesce(l.lanacl, acldefault('l', l.lanowner)), 'USAGE'
            FROM pg_language l WHERE l.lanname = 'plpgsql')
        SELECT l.name FROM lists l CROSS JOIN LATERAL aclexplode(l.acl) a
        WHERE a.grantee = 0 AND a.privilege_type = l.closed ORDER BY 1"""
    functions.append("pg_catalog.set_config(text,text,boolean)")
    for (name,) in installation.rows(query, functions=functions):
        yield error("catalogue_open", name, "every login may use it: PUBLIC has the privilege", _RUN_CREATE_ROLES)


def _check_initial(installation: Installation) -> Iterator[Finding]:
    """Privileges on PostgreSQL's own schemas that PUBLIC has neither from initdb nor by `revoke_public_privileges`."""
    # pg_init_privs does not have the views of information_schema: initdb creates them later.
    query = r"""
        WITH lists (schema_oid, class, oid, part, name, target, acl, initial) AS (
            SELECT relnamespace, 'pg_class'::regclass, oid, 0, oid::regclass::text, ' ON ' || oid::regclass, relacl,
                acldefault((CASE relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", relowner)
            FROM pg_class WHERE relacl IS NOT NULL
            UNION ALL
            SELECT c.relnamespace, 'pg_class'::regclass, c.oid, a.attnum, c.oid::regclass || '.' || a.attname,
                format(' (%%I) ON %%s', a.attname, c.oid::regclass), a.attacl, NULL
            FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE a.attacl IS NOT NULL
            UNION ALL
            SELECT pronamespace, 'pg_proc'::regclass, oid, 0, oid::regprocedure::text,
                ' ON FUNCTION ' || oid::regprocedure, proacl, acldefault('f', proowner)
            FROM pg_proc WHERE proacl IS NOT NULL)
        SELECT l.name, a.privilege_type, l.target FROM lists l CROSS JOIN LATERAL aclexplode(l.acl) a
        LEFT JOIN pg_init_privs i ON i.classoid = l.class AND i.objoid = l.oid AND i.objsubid = l.part
        WHERE l.schema_oid IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) AND a.grantee = 0
            AND NOT EXISTS (SELECT FROM aclexplode(coalesce(i.initprivs, l.initial)) b
                WHERE b.grantee = 0 AND b.privilege_type = a.privilege_type)
            AND NOT (l.oid = 'pg_catalog.pg_class'::regclass AND l.part > 0 AND a.privilege_type = 'SELECT'
                AND l.name <> ALL(%(closed)s))
            AND NOT (l.part = 0 AND l.name ~ '^information_schema\.[^_]' AND a.privilege_type = 'SELECT')
        ORDER BY 1, 2"""
    for name, privilege, target in installation.rows(query, closed=[f"pg_class.{name}" for name in REVOKED_COLUMNS]):
        what = f"every login has {privilege} on it, through PUBLIC"
        yield error("catalogue_open", name, what, f"REVOKE {privilege}{target} FROM PUBLIC;")
