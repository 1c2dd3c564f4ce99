"""The registry agrees with the database: each row has its schema and its role, at its revision. There are no other
schemas and roles, except retired ones that are not yet due for dropping.
"""

from collections.abc import Iterator

from tenant_schemas.doctor.finding import Finding, Installation, error, warning
from tenant_schemas.lifecycle.retired_schemas import RetiredSchema, list_retired_schemas
from tenant_schemas.migrations.history import History, current_revision
from tenant_schemas.schema_diff.revisions import revisions_of
from tenant_schemas.tenant import SHARED_SCHEMA

_MIGRATE = "Run `python -m scripts.migrate`."
_DROP_RETIRED = "Run `python -m scripts.drop_retired_schemas`."
_RESTORE_OR_CORRECT = "Find the cause. Then restore the tenant from a backup, or correct its row in shared.tenants."


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
        SELECT nspname, nspowner = to_regrole(%(owner)s) FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public', 'shared', 'pgbouncer') ORDER BY 1"""
    found = dict(tuple(row) for row in installation.rows(query, owner=installation.roles.owner))
    for tenant in installation.tenants:
        if tenant.schema_name not in found:
            what = f"it does not exist; it is the schema of tenant {tenant.slug}"
            yield error("schema_missing", f"schema {tenant.schema_name}", what, _RESTORE_OR_CORRECT)
    for each in retired:
        if each.is_due and each.schema_name in found:
            what = f"it is retired ({each.reason}) and due for dropping since {each.drop_after:%Y-%m-%d}"
            yield warning("retired_schema_due", f"schema {each.schema_name}", what, _DROP_RETIRED)
    for name in sorted(found.keys() - set(installation.tenant_schemas) - {each.schema_name for each in retired}):
        what = "no tenant of the registry has it"
        finding = error if found[name] else warning
        yield finding(
            "schema_unregistered", f"schema {name}", what, f"If none of its data is needed: DROP SCHEMA {name} CASCADE;"
        )


def _check_roles(installation: Installation, retired: list[RetiredSchema]) -> Iterator[Finding]:
    """Roles in the tenants' group, or named tenant_…, that no tenant has. (`roles.check` finds missing roles.)"""
    query = """
        SELECT r.rolname FROM pg_roles r
        WHERE r.rolname <> ALL(%(known)s) AND (r.rolname ~ '^tenant_' OR EXISTS (SELECT FROM pg_auth_members m
            WHERE m.member = r.oid AND m.roleid = to_regrole(%(tenants)s))) ORDER BY 1"""
    roles = installation.roles
    of_retired = [each.role_name for each in retired if each.role_name]
    logins = (roles.migrator, roles.app, roles.backup, roles.relay, roles.pool)
    known = [*installation.tenant_roles, *of_retired, *logins, roles.owner]
    for (name,) in installation.rows(query, known=known, tenants=roles.tenants):
        what = "no tenant of the registry has it"
        yield error("role_unregistered", f"role {name}", what, f"If no other database uses it: DROP ROLE {name};")


def _check_revisions(installation: Installation) -> Iterator[Finding]:
    head = installation.migrations.head(History.TENANT)
    revisions = revisions_of(installation.visitor, installation.tenants)
    for tenant in installation.tenants:
        if tenant.schema_name not in revisions:
            continue
        where, found = f"schema {tenant.schema_name}", revisions[tenant.schema_name]
        if found != tenant.revision:
            what = f"it is at revision {found or 'none'}; the registry says {tenant.revision}"
            yield error("revision", where, what, _RESTORE_OR_CORRECT)
        elif tenant.revision < head:
            yield warning("behind", where, f"it is at revision {tenant.revision}; head is {head}", _MIGRATE)
