"""The registry and reality: each row has its schema and its role, at its revision, and there are no others."""

from collections.abc import Iterator

from psycopg import sql

from tenant_schemas.doctor.finding import Finding, Patient, error, warning
from tenant_schemas.migrations import VERSION_TABLE, History, current_revision
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant

_MIGRATE = "Run `python -m scripts.migrate`."
_BY_HAND = "Find out who did this; restore it from a backup, or take the row out."
TENANTS_AT_ONCE = 100


def check(patient: Patient) -> Iterator[Finding]:
    yield from _check_shared(patient)
    yield from _check_schemas(patient)
    yield from _check_roles(patient)
    yield from _check_revisions(patient)


def _check_shared(patient: Patient) -> Iterator[Finding]:
    at, head = current_revision(patient.connection, SHARED_SCHEMA), patient.migrations.head(History.SHARED)
    if at is None or at < head:
        yield error("behind", f"schema {SHARED_SCHEMA}", f"it is at {at or 'nothing'}, not at {head}", _MIGRATE)


def _check_schemas(patient: Patient) -> Iterator[Finding]:
    query = """
        SELECT nspname, nspowner = to_regrole(%(owner)s) FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public', 'shared') ORDER BY 1"""
    found = dict(tuple(row) for row in patient.rows(query, owner=patient.roles.owner))
    for tenant in patient.tenants:
        if tenant.schema_name not in found:
            what = f"it does not exist, and tenant {tenant.slug} should be there"
            yield error("schema_missing", f"schema {tenant.schema_name}", what, _BY_HAND)
    for name in sorted(found.keys() - set(patient.tenant_schemas)):
        what = "no tenant of the registry is there"
        finding = error if found[name] else warning
        yield finding("schema_unregistered", f"schema {name}", what, "If nobody needs it: DROP SCHEMA.")


def _check_roles(patient: Patient) -> Iterator[Finding]:
    """A missing role is found with the attributes. One that is in the group or named like a login, and is nobody's."""
    query = """
        SELECT r.rolname FROM pg_roles r
        WHERE r.rolname <> ALL(%(known)s) AND (r.rolname ~ '^tenant_' OR EXISTS (SELECT FROM pg_auth_members m
            WHERE m.member = r.oid AND m.roleid = to_regrole(%(tenants)s))) ORDER BY 1"""
    roles = patient.roles
    known = [*patient.tenant_roles, roles.migrator, roles.app, roles.backup, roles.pool, roles.owner]
    for (name,) in patient.rows(query, known=known, tenants=roles.tenants):
        what = "no tenant of the registry logs in as it"
        yield error("role_unregistered", f"role {name}", what, f"If no other database uses it: DROP ROLE {name};")


def _check_revisions(patient: Patient) -> Iterator[Finding]:
    head = patient.migrations.head(History.TENANT)
    for tenant, found in _revisions(patient):
        where = f"schema {tenant.schema_name}"
        if found != tenant.revision:
            what = f"it is at {found or 'nothing'}, and the registry says {tenant.revision}"
            yield error("revision", where, what, _BY_HAND)
        elif tenant.revision < head:
            yield warning("behind", where, f"it is at {tenant.revision}, not at {head}", _MIGRATE)


def _revisions(patient: Patient) -> Iterator[tuple[Tenant, str | None]]:
    """Each tenant with what its own schema says, some tenants to a query."""
    query = """
        SELECT n.nspname FROM pg_namespace n
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = %(table)s AND c.relkind = 'r'"""
    versioned = {name for (name,) in patient.rows(query, table=VERSION_TABLE)}
    for start in range(0, len(patient.tenants), TENANTS_AT_ONCE):
        tenants = patient.tenants[start : start + TENANTS_AT_ONCE]
        parts = [
            sql.SQL("SELECT {}, string_agg(version_num, ' ') FROM {}").format(
                sql.Literal(tenant.schema_name), sql.Identifier(tenant.schema_name, VERSION_TABLE)
            )
            for tenant in tenants
            if tenant.schema_name in versioned
        ]
        rows = patient.rows(sql.SQL(" UNION ALL ").join(parts).as_string()) if parts else []
        found = dict(tuple(row) for row in rows)
        for tenant in tenants:
            yield tenant, found.get(tenant.schema_name)
