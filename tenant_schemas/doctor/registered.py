"""The registry and reality: each row has its schema and its role, at its revision, and there are no others but those
noted as spare, for as long as they are to be kept.
"""

from collections.abc import Iterator

from tenant_schemas.doctor.finding import Finding, Patient, error, warning
from tenant_schemas.drift import revisions_of
from tenant_schemas.lifecycle.spares import Spare, list_spares
from tenant_schemas.migrations import History, current_revision
from tenant_schemas.tenant import SHARED_SCHEMA

_MIGRATE = "Run `python -m scripts.migrate`."
_DROP_SPARES = "Run `python -m scripts.drop_spare_schemas`."
_BY_HAND = "Find out who did this; restore it from a backup, or take the row out."


def check(patient: Patient) -> Iterator[Finding]:
    yield from _check_shared(patient)
    spares = _spares(patient)
    yield from _check_schemas(patient, spares)
    yield from _check_roles(patient, spares)
    yield from _check_revisions(patient)


def _spares(patient: Patient) -> list[Spare]:
    """None where `shared` is not yet at the revision that knows of them."""
    (is_known,) = patient.rows("SELECT to_regclass('shared.spare_schemas') IS NOT NULL")[0]
    return list_spares(patient.connection) if is_known else []


def _check_shared(patient: Patient) -> Iterator[Finding]:
    at, head = current_revision(patient.connection, SHARED_SCHEMA), patient.migrations.head(History.SHARED)
    if at is None or at < head:
        yield error("behind", f"schema {SHARED_SCHEMA}", f"it is at {at or 'nothing'}, not at {head}", _MIGRATE)


def _check_schemas(patient: Patient, spares: list[Spare]) -> Iterator[Finding]:
    query = """
        SELECT nspname, nspowner = to_regrole(%(owner)s) FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public', 'shared') ORDER BY 1"""
    found = dict(tuple(row) for row in patient.rows(query, owner=patient.roles.owner))
    for tenant in patient.tenants:
        if tenant.schema_name not in found:
            what = f"it does not exist, and tenant {tenant.slug} should be there"
            yield error("schema_missing", f"schema {tenant.schema_name}", what, _BY_HAND)
    for spare in spares:
        if spare.is_due and spare.schema_name in found:
            what = f"it is spare ({spare.reason}) and was to be dropped after {spare.drop_after:%Y-%m-%d}"
            yield warning("spare_due", f"schema {spare.schema_name}", what, _DROP_SPARES)
    for name in sorted(found.keys() - set(patient.tenant_schemas) - {spare.schema_name for spare in spares}):
        what = "no tenant of the registry is there"
        finding = error if found[name] else warning
        yield finding("schema_unregistered", f"schema {name}", what, "If nobody needs it: DROP SCHEMA.")


def _check_roles(patient: Patient, spares: list[Spare]) -> Iterator[Finding]:
    """A missing role is found with the attributes. One that is in the group or named like a login, and is nobody's."""
    query = """
        SELECT r.rolname FROM pg_roles r
        WHERE r.rolname <> ALL(%(known)s) AND (r.rolname ~ '^tenant_' OR EXISTS (SELECT FROM pg_auth_members m
            WHERE m.member = r.oid AND m.roleid = to_regrole(%(tenants)s))) ORDER BY 1"""
    roles = patient.roles
    of_spares = [spare.role_name for spare in spares if spare.role_name]
    known = [*patient.tenant_roles, *of_spares, roles.migrator, roles.app, roles.backup, roles.pool, roles.owner]
    for (name,) in patient.rows(query, known=known, tenants=roles.tenants):
        what = "no tenant of the registry logs in as it"
        yield error("role_unregistered", f"role {name}", what, f"If no other database uses it: DROP ROLE {name};")


def _check_revisions(patient: Patient) -> Iterator[Finding]:
    head = patient.migrations.head(History.TENANT)
    for tenant, found in revisions_of(patient.connection, patient.tenants):
        where = f"schema {tenant.schema_name}"
        if found != tenant.revision:
            what = f"it is at {found or 'nothing'}, and the registry says {tenant.revision}"
            yield error("revision", where, what, _BY_HAND)
        elif tenant.revision < head:
            yield warning("behind", where, f"it is at {tenant.revision}, not at {head}", _MIGRATE)
