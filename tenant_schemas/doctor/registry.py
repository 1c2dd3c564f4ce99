"""The registry agrees with the database: each row has its schema and its role, at its revision. There are no other
schemas and roles, except retired ones that are not yet due for dropping.
"""

from collections.abc import Iterator
from typing import Any

from psycopg import sql
from sqlalchemy import Row

from tenant_schemas.doctor.finding import Finding, Installation, error, warning
from tenant_schemas.lifecycle.retired_schemas import RetiredSchema, list_retired_schemas
from tenant_schemas.migrations.history import VERSION_TABLE, History, current_revision
from tenant_schemas.schema_diff.catalog import fingerprints_of
from tenant_schemas.schema_diff.revisions import revisions_of
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant

_MIGRATE = "Run `python -m scripts.migrate`."
_DROP_RETIRED = "Run `python -m scripts.drop_retired_schemas`."
_RESTORE = "Find the cause. Then restore the tenant from a backup."
_ADOPT = "Run `python -m scripts.repair_tenant {} --adopt {}`."
_ADOPT_WITHOUT_ROW = (
    "It has tables of a tenant: never drop it before you know whose it is. If the tenant's row is gone, run "
    "`python -m scripts.repair_tenant SLUG --adopt {} --id ID --currency CODE`, with the id from a bundle's manifest."
)
_EMPTY = "If it is not needed: DROP SCHEMA {};"
_NOT_EMPTY = (
    "Find out whose it is, and move what is needed to another database. When nothing is left in it: DROP SCHEMA {};"
)
_DROP_ROLE = "If no other database uses it: REASSIGN OWNED BY {0} TO {1}; DROP OWNED BY {0}; DROP ROLE {0};"
_STAMP = "Its objects are those of {1}, so correct its stamp: DELETE FROM {0}; INSERT INTO {0} VALUES ('{1}');"
# Functions of a tenant's schema name it in their search_path, also after it was renamed by hand.
_UNKNOWN_SCHEMAS = """
    SELECT n.nspname, quote_ident(n.nspname) AS quoted, n.nspowner = to_regrole(%(owner)s) AS is_ours,
        EXISTS (SELECT FROM pg_depend d
            WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid) AS is_used,
        EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = %(version)s) AS has_revision,
        (SELECT min(t.slug) FROM pg_proc p JOIN shared.tenants t
            ON 'search_path=' || quote_ident(t.schema_name) || ', pg_temp' = ANY(p.proconfig)
            WHERE p.pronamespace = n.oid AND t.schema_name = ANY(%(missing)s)) AS slug
    FROM pg_namespace n WHERE n.nspname = ANY(%(names)s) ORDER BY 1"""


def check(installation: Installation) -> Iterator[Finding]:
    yield from _check_shared(installation)
    retired = _retired_schemas(installation)
    yield from _check_schemas(installation, retired)
    yield from _check_roles(installation, retired)
    yield from _check_revisions(installation)


def _retired_schemas(installation: Installation) -> list[RetiredSchema]:
    """The retired schemas; none if `shared` is older than their table."""
    (is_known,) = installation.rows("SELECT to_regclass('shared.spare_schemas') IS NOT NULL")[0]
    return list_retired_schemas(installation.connection) if is_known else []


def _check_shared(installation: Installation) -> Iterator[Finding]:
    at, head = current_revision(installation.connection, SHARED_SCHEMA), installation.migrations.head(History.SHARED)
    if at is None or at < head:
        yield error("behind", f"schema {SHARED_SCHEMA}", f"it is at revision {at or 'none'}; head is {head}", _MIGRATE)


def _check_schemas(installation: Installation, retired: list[RetiredSchema]) -> Iterator[Finding]:
    query = """
        SELECT nspname FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public', 'shared', 'pgbouncer')"""
    found = {str(name) for (name,) in installation.rows(query)}
    missing = [tenant for tenant in installation.tenants if tenant.schema_name not in found]
    unknown = found - set(installation.tenant_schemas) - {each.schema_name for each in retired}
    unknown_rows = installation.rows(
        _UNKNOWN_SCHEMAS,
        names=list(unknown),
        missing=[tenant.schema_name for tenant in missing],
        owner=installation.roles.owner,
        version=VERSION_TABLE,
    )
    renamed = {row.slug: row.nspname for row in unknown_rows if row.slug}
    for tenant in missing:
        what = f"it does not exist; it is the schema of tenant {tenant.slug}"
        remedy = _ADOPT.format(tenant.slug, renamed[tenant.slug]) if tenant.slug in renamed else _RESTORE
        yield error("schema_missing", f"schema {tenant.schema_name}", what, remedy)
    for each in retired:
        if each.is_due and each.schema_name in found:
            what = f"it is retired ({each.reason}) and due for dropping since {each.drop_after:%Y-%m-%d}"
            yield warning("retired_schema_due", f"schema {each.schema_name}", what, _DROP_RETIRED)
    for row in unknown_rows:
        finding = error if row.is_ours else warning
        remedy = _remedy_of_unknown(row)
        yield finding("schema_unregistered", f"schema {row.nspname}", "no tenant of the registry has it", remedy)


def _remedy_of_unknown(row: Row[Any]) -> str:
    """No remedy drops a table."""
    if row.slug:
        return _ADOPT.format(row.slug, row.nspname)
    if row.has_revision:
        return _ADOPT_WITHOUT_ROW.format(row.nspname)
    return (_NOT_EMPTY if row.is_used else _EMPTY).format(row.quoted)


def _check_roles(installation: Installation, retired: list[RetiredSchema]) -> Iterator[Finding]:
    """Roles in the tenants' group, or named tenant_…, that no tenant has. (`roles.check` finds missing roles.)"""
    query = """
        SELECT r.rolname, quote_ident(r.rolname) FROM pg_roles r
        WHERE r.rolname <> ALL(%(known)s) AND (r.rolname ~ '^tenant_' OR EXISTS (SELECT FROM pg_auth_members m
            WHERE m.member = r.oid AND m.roleid = to_regrole(%(tenants)s))) ORDER BY 1"""
    roles = installation.roles
    of_retired = [each.role_name for each in retired if each.role_name]
    logins = (roles.migrator, roles.app, roles.backup, roles.relay, roles.pool)
    known = [*installation.tenant_roles, *of_retired, *logins, roles.owner]
    for name, quoted in installation.rows(query, known=known, tenants=roles.tenants):
        remedy = _DROP_ROLE.format(quoted, roles.owner)
        yield error("role_unregistered", f"role {name}", "no tenant of the registry has it", remedy)


def _check_revisions(installation: Installation) -> Iterator[Finding]:
    head = installation.migrations.head(History.TENANT)
    revisions = revisions_of(installation.visitor, installation.tenants)
    for tenant in installation.tenants:
        if tenant.schema_name not in revisions:
            continue
        where, found = f"schema {tenant.schema_name}", revisions[tenant.schema_name]
        if found != tenant.revision:
            what = f"it is at revision {found or 'none'}; the registry says {tenant.revision}"
            yield error("revision", where, what, _remedy_of_revision(installation, tenant))
        elif tenant.revision < head:
            yield warning("behind", where, f"it is at revision {tenant.revision}; head is {head}", _MIGRATE)


def _remedy_of_revision(installation: Installation, tenant: Tenant) -> str:
    """If the objects are those of the registry's revision, only the version table is wrong."""
    if tenant.revision != installation.migrations.head(History.TENANT) or not installation.reference.fingerprint:
        return _RESTORE
    found = installation.visitor.visit(
        tenant, lambda: fingerprints_of(installation.connection, [tenant]).get(tenant.schema_name)
    )
    table = sql.Identifier(tenant.schema_name, VERSION_TABLE).as_string()
    return _STAMP.format(table, tenant.revision) if found == installation.reference.fingerprint else _RESTORE
