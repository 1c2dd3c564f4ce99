"""Finds schema drift: the objects in which a tenant's schema differs from the reference of its revision.

If there is no reference and none can be made, the schemas of one revision are compared with each other, and the
majority counts as correct. A difference that all of them share is then not found.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace

from psycopg import sql
from sqlalchemy import Connection

from tenant_schemas.migrations.history import Migrations
from tenant_schemas.migrations.replay import VERSION_TABLE
from tenant_schemas.registry import all_tenants
from tenant_schemas.schema_diff.catalog import Objects, fingerprints_of, objects_of
from tenant_schemas.schema_diff.reference import Reference, make_reference, store_fingerprint, stored_fingerprint
from tenant_schemas.schema_diff.stamps import stamps_of, store_stamps, stored_fingerprints
from tenant_schemas.tenant import Tenant

TENANTS_AT_ONCE = 100
_PEERS_PER_REVISION = 10
_HISTORY = "the schema that the migrations make"
_NO_RIGHTS = "a comparison with the migrations needs the owner's rights and a writable server"
_UNNAMED_OBJECTS = "objects that only a login with the owner's rights can name"


@dataclass(frozen=True, slots=True)
class Difference:
    """The objects in which a tenant's schema differs from `reference_name`: the history, or another tenant's schema."""

    tenant: Tenant
    reference_name: str
    objects: list[str]


@dataclass(frozen=True, slots=True)
class Drift:
    """The drift of some tenants. `objects` are the differing objects by schema name, without schemas that have none.
    `unproven` are the revisions without a reference, with the reason.
    """

    objects: dict[str, list[str]]
    unproven: dict[str, str]


def drifted_objects(connection: Connection, migrations: Migrations, tenants: Sequence[Tenant]) -> dict[str, list[str]]:
    """The differing objects by schema name, without schemas that have none."""
    return find_drift(connection, migrations, tenants).objects


def find_drift(
    connection: Connection, migrations: Migrations, tenants: Sequence[Tenant], *, is_full: bool = False
) -> Drift:
    """Compare the tenants' schemas with the references of their revisions. A new reference's fingerprint and the
    schemas' stamps are stored within the open db transaction: commit it to keep them. No other lock is kept. With
    `is_full` the stored stamps are not read.
    """
    fingerprints = fingerprints_by_schema(connection, tenants, is_full=is_full)
    references = {
        revision: _reference(connection, migrations, at_revision, fingerprints)
        for revision, at_revision in _by_revision(tenants)
    }
    without_objects = {
        tenant.revision
        for tenant in tenants
        if references[tenant.revision].objects is None
        and fingerprints.get(tenant.schema_name) != references[tenant.revision].fingerprint
    }
    peers = _peers(connection, tenants, without_objects)
    fingerprints |= fingerprints_by_schema(connection, peers, is_full=is_full)
    requested = {tenant.schema_name for tenant in tenants}
    objects = {
        difference.tenant.schema_name: difference.objects
        for difference in compare(connection, [*tenants, *peers], fingerprints, references)
        if difference.tenant.schema_name in requested
    }
    for tenant, at in revisions_of(connection, tenants):
        if at != tenant.revision:
            mismatch = f"{VERSION_TABLE}: {at or 'nothing'}, but the registry says {tenant.revision}"
            objects[tenant.schema_name] = [mismatch, *objects.get(tenant.schema_name, [])]
    unproven = {
        revision: each.failure or _NO_RIGHTS for revision, each in references.items() if each.fingerprint is None
    }
    return Drift(objects, unproven)


def compare(
    connection: Connection,
    tenants: Sequence[Tenant],
    fingerprints: Mapping[str, str],
    references: Mapping[str, Reference],
) -> Iterator[Difference]:
    """Each schema that differs from the reference of its revision, or, without a reference, from the majority at its
    revision. Schemas that do not exist are ignored.
    """
    existing = [tenant for tenant in tenants if tenant.schema_name in fingerprints]
    for revision, at_revision in _by_revision(existing):
        reference = references.get(revision, Reference())
        if reference.objects is not None:
            yield from _compare_with_reference(connection, at_revision, fingerprints, reference)
        else:
            yield from _compare_with_majority(connection, at_revision, fingerprints, reference.fingerprint)


def fingerprints_by_schema(
    connection: Connection, tenants: Sequence[Tenant], *, is_full: bool = False
) -> dict[str, str]:
    """The fingerprint of each existing schema: the stored one if the schema's stamp is the stored one too, else a
    computed one, with several tenants per query. With `is_full` all are computed. The computed ones are stored.
    """
    with _releasing_locks(connection):
        stamps = stamps_of(connection, tenants)
        known = {} if is_full else stored_fingerprints(connection, stamps)
    found: dict[str, str] = {}
    for batch in _batches([tenant for tenant in tenants if tenant.schema_name not in known]):
        with _releasing_locks(connection):
            found |= fingerprints_of(connection, batch)
    store_stamps(connection, stamps, found)
    return known | found


def revisions_of(connection: Connection, tenants: Sequence[Tenant]) -> Iterator[tuple[Tenant, str | None]]:
    """Each tenant with the revision in its schema's version table, with several tenants per query."""
    query = """
        SELECT n.nspname FROM pg_namespace n
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = %s AND c.relkind = 'r'"""
    versioned = set(connection.exec_driver_sql(query, (VERSION_TABLE,)).scalars())
    for batch in _batches(tenants):
        parts = [
            sql.SQL("SELECT {}, string_agg(version_num, ' ') FROM {}").format(
                sql.Literal(tenant.schema_name), sql.Identifier(tenant.schema_name, VERSION_TABLE)
            )
            for tenant in batch
            if tenant.schema_name in versioned
        ]
        with _releasing_locks(connection):
            rows = connection.exec_driver_sql(sql.SQL(" UNION ALL ").join(parts).as_string()).all() if parts else []
        found = {str(schema_name): revision for schema_name, revision in rows}
        for tenant in batch:
            yield tenant, found.get(tenant.schema_name)


def _reference(
    connection: Connection, migrations: Migrations, tenants: Sequence[Tenant], fingerprints: Mapping[str, str]
) -> Reference:
    """The stored fingerprint, if one of the schemas has it: that schema then shows which objects differ in the others.
    Else a new reference is made.
    """
    revision = tenants[0].revision
    stored = stored_fingerprint(connection, migrations, revision)
    if stored and any(fingerprints.get(tenant.schema_name) == stored for tenant in tenants):
        return Reference(stored)
    reference = make_reference(connection, migrations, tenants, revision)
    if reference.fingerprint and reference.fingerprint != stored:
        store_fingerprint(connection, migrations, revision, reference.fingerprint)
    return reference if reference.fingerprint else replace(reference, fingerprint=stored)


def _peers(connection: Connection, tenants: Sequence[Tenant], revisions: Set[str]) -> list[Tenant]:
    """Other tenants to compare with, at the revisions that have no reference objects."""
    known = {tenant.id for tenant in tenants}
    others = [tenant for tenant in all_tenants(connection) if tenant.id not in known] if revisions else []
    return [
        tenant
        for revision, at_revision in _by_revision(others)
        for tenant in at_revision[:_PEERS_PER_REVISION]
        if revision in revisions
    ]


def _by_revision(tenants: Sequence[Tenant]) -> Iterator[tuple[str, list[Tenant]]]:
    for revision in sorted({tenant.revision for tenant in tenants}):
        yield revision, [tenant for tenant in tenants if tenant.revision == revision]


def _compare_with_reference(
    connection: Connection, tenants: Sequence[Tenant], fingerprints: Mapping[str, str], reference: Reference
) -> Iterator[Difference]:
    for tenant in tenants:
        if fingerprints[tenant.schema_name] != reference.fingerprint:
            objects = _differences(_objects(connection, tenant), reference.objects or {}, tenant.schema_name)
            if objects:
                yield Difference(tenant, _HISTORY, objects)


def _compare_with_majority(
    connection: Connection, tenants: Sequence[Tenant], fingerprints: Mapping[str, str], stored: str | None
) -> Iterator[Difference]:
    """Compare with the tenants that have the stored fingerprint, or else with the most frequent one."""
    expected = stored or Counter(fingerprints[tenant.schema_name] for tenant in tenants).most_common(1)[0][0]
    reference_tenant = next((tenant for tenant in tenants if fingerprints[tenant.schema_name] == expected), None)
    others = [tenant for tenant in tenants if fingerprints[tenant.schema_name] != expected]
    if reference_tenant is None:
        yield from (Difference(tenant, _HISTORY, [_UNNAMED_OBJECTS]) for tenant in others)
        return
    reference_objects = _objects(connection, reference_tenant) if others else {}
    for tenant in others:
        objects = _differences(
            _objects(connection, tenant), reference_objects, tenant.schema_name, reference_tenant.schema_name
        )
        if objects:
            yield Difference(tenant, reference_tenant.schema_name, objects)


def _differences(objects: Objects, reference_objects: Objects, *schema_names: str) -> list[str]:
    """The objects that differ. Both schema names are removed from both descriptions: if a schema is named like a table
    or an alias in its views, its description lacks that name too.
    """
    names = [form for one in schema_names for form in (f'"{one}".', f"{one}.")]

    def description(objects: Objects, key: tuple[str, str]) -> str | None:
        found = objects.get(key)
        for name in names:
            found = found and found.replace(name, ".")
        return found

    keys = sorted({*objects, *reference_objects})
    return [
        f"{kind} {name}"
        for kind, name in keys
        if description(objects, (kind, name)) != description(reference_objects, (kind, name))
    ]


def _objects(connection: Connection, tenant: Tenant) -> Objects:
    with _releasing_locks(connection):
        return objects_of(connection, tenant)


def _batches(tenants: Sequence[Tenant]) -> Iterator[Sequence[Tenant]]:
    return (tenants[start : start + TENANTS_AT_ONCE] for start in range(0, len(tenants), TENANTS_AT_ONCE))


@contextmanager
def _releasing_locks(connection: Connection) -> Iterator[None]:
    """Release the locks that the block took, by a rollback to a savepoint. PostgreSQL locks the tables of each view
    that it describes, and a thousand tenants would exceed its lock table.
    """
    savepoint = connection.begin_nested()
    try:
        yield
    finally:
        savepoint.rollback()
