"""Finds schema drift: the objects in which a tenant's schema differs from the reference of its revision.

If there is no reference and none can be made, the schemas of one revision are compared with each other, and the
majority counts as correct. A difference that all of them share is then not found.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from typing import TypeVar

from sqlalchemy import Connection

from tenant_schemas.migrations.history import Migrations
from tenant_schemas.migrations.replay import VERSION_TABLE
from tenant_schemas.registry import all_tenants
from tenant_schemas.roles import ServiceRoles
from tenant_schemas.schema_diff.catalog import Objects, fingerprints_of, objects_of
from tenant_schemas.schema_diff.effects import DriftedObject, Effect, effect_of
from tenant_schemas.schema_diff.reference import (
    Reference,
    make_reference,
    store_fingerprint,
    stored_fingerprint,
    stored_objects,
)
from tenant_schemas.schema_diff.revisions import revisions_of
from tenant_schemas.schema_diff.stamps import stamps_of, store_stamps, stored_fingerprints
from tenant_schemas.tenant import Tenant
from tenant_schemas.visits import LOCK_TIMEOUT_MS, Failure, Visitor, releasing_locks

_PEERS_PER_REVISION = 10
_HISTORY = "the schema that the migrations make"
_NO_RIGHTS = "a comparison with the migrations needs the owner's rights and a writable server"
Found = TypeVar("Found")
# A reader has a stored fingerprint and no schema that has it.
_UNNAMED_OBJECTS = DriftedObject("objects that only a login with the owner's rights can name", Effect.BREAKS)


@dataclass(frozen=True, slots=True)
class Difference:
    """The objects in which a tenant's schema differs from `reference_name`: the history, or another tenant's schema."""

    tenant: Tenant
    reference_name: str
    objects: list[DriftedObject]


@dataclass(frozen=True, slots=True)
class Drift:
    """The drift of some tenants. `objects` are the differing objects by schema name, without schemas that have none.
    `unproven` are the revisions without a reference, with the reason. `revisions` are those of the version
    tables, and `failures` the tenants that could not be read, by schema name.
    """

    objects: dict[str, list[DriftedObject]]
    unproven: dict[str, str]
    revisions: Mapping[str, str | None] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)


def drifted_objects(connection: Connection, migrations: Migrations, tenants: Sequence[Tenant]) -> dict[str, list[str]]:
    """The differing objects by schema name, without schemas that have none; of a schema that can't be read, why."""
    drift = find_drift(connection, migrations, tenants)
    differing = {name: [each.name for each in objects] for name, objects in drift.objects.items()}
    return differing | {name: [str(failure)] for name, failure in drift.failures.items()}


def find_drift(
    connection: Connection,
    migrations: Migrations,
    tenants: Sequence[Tenant],
    *,
    is_full: bool = False,
    lock_timeout_ms: int = LOCK_TIMEOUT_MS,
) -> Drift:
    """Compare the tenants' schemas with the references of their revisions. A new reference's fingerprint and the
    schemas' stamps are stored within the open db transaction: commit it to keep them. No other lock is kept. With
    `is_full` the stored stamps are not read. A tenant that can't be read, or not within the lock time-out, is a failure
    and stops no other.
    """
    visitor = Visitor(connection, lock_timeout_ms=lock_timeout_ms)
    visitor.note_missing(tenants)
    fingerprints = fingerprints_by_schema(visitor, tenants, is_full=is_full)
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
    fingerprints |= fingerprints_by_schema(visitor, peers, is_full=is_full)
    objects = {
        difference.tenant.schema_name: difference.objects
        for difference in compare(visitor, migrations.roles, [*tenants, *peers], fingerprints, references)
    }
    registered = {tenant.schema_name: tenant.revision for tenant in tenants}
    revisions = revisions_of(visitor, tenants)
    for schema_name, at in revisions.items():
        revision = registered[schema_name]
        if at != revision:
            mismatch = f"{VERSION_TABLE}: {at or 'nothing'}, but the registry says {revision}"
            objects[schema_name] = [DriftedObject(mismatch, Effect.BREAKS), *objects.get(schema_name, [])]
    unproven = {
        revision: each.failure or _NO_RIGHTS for revision, each in references.items() if each.fingerprint is None
    }
    failures = _only(visitor.failures, registered.keys())
    return Drift(_only(objects, registered.keys()), unproven, revisions, failures)


def _only(by_schema: Mapping[str, Found], names: Set[str]) -> dict[str, Found]:
    return {name: found for name, found in by_schema.items() if name in names}


def compare(
    visitor: Visitor[Connection],
    roles: ServiceRoles,
    tenants: Sequence[Tenant],
    fingerprints: Mapping[str, str],
    references: Mapping[str, Reference],
) -> Iterator[Difference]:
    """Each schema that differs from the reference of its revision, or, without a reference, from the majority at its
    revision. Schemas that do not exist are ignored. A schema that can't be read is a failure of the visitor.
    """
    existing = [tenant for tenant in tenants if tenant.schema_name in fingerprints]
    for revision, at_revision in _by_revision(existing):
        reference = references.get(revision, Reference())
        if reference.objects is not None:
            yield from _compare_with_reference(visitor, roles, at_revision, fingerprints, reference)
        else:
            yield from _compare_with_majority(visitor, roles, at_revision, fingerprints, reference.fingerprint)


def fingerprints_by_schema(
    visitor: Visitor[Connection], tenants: Sequence[Tenant], *, is_full: bool = False
) -> dict[str, str]:
    """The fingerprint of each schema that exists and can be read: the stored one if the schema's stamp is the stored
    one too, else a computed one, with several tenants per query. With `is_full` all are computed. The computed ones are
    stored.
    """
    connection = visitor.connection
    with releasing_locks(connection, LOCK_TIMEOUT_MS):
        stamps = stamps_of(connection, tenants)
        known = {} if is_full else stored_fingerprints(connection, stamps)
    unknown = [tenant for tenant in tenants if tenant.schema_name not in known]
    found = visitor.visit_all(unknown, lambda some: fingerprints_of(connection, some))
    store_stamps(connection, stamps, found)
    return known | found


def _reference(
    connection: Connection, migrations: Migrations, tenants: Sequence[Tenant], fingerprints: Mapping[str, str]
) -> Reference:
    """The stored reference, or a new one. The stored fingerprint alone, if all of the schemas have it."""
    revision = tenants[0].revision
    stored = stored_fingerprint(connection, migrations, revision)
    if stored:
        is_known = all(fingerprints.get(tenant.schema_name, stored) == stored for tenant in tenants)
        objects = None if is_known else stored_objects(connection, migrations, revision)
        if is_known or objects is not None:
            return Reference(stored, objects)
    reference = make_reference(connection, migrations, tenants, revision)
    if reference.fingerprint and reference.fingerprint != stored:
        store_fingerprint(connection, migrations, revision, reference.fingerprint, reference.objects)
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
    visitor: Visitor[Connection],
    roles: ServiceRoles,
    tenants: Sequence[Tenant],
    fingerprints: Mapping[str, str],
    reference: Reference,
) -> Iterator[Difference]:
    for tenant in tenants:
        if fingerprints[tenant.schema_name] != reference.fingerprint:
            objects = _objects(visitor, tenant)
            if objects is None:
                continue
            differing = differences(roles, objects, reference.objects or {}, tenant.schema_name)
            if differing:
                yield Difference(tenant, _HISTORY, differing)


def _compare_with_majority(
    visitor: Visitor[Connection],
    roles: ServiceRoles,
    tenants: Sequence[Tenant],
    fingerprints: Mapping[str, str],
    stored: str | None,
) -> Iterator[Difference]:
    """Compare with the tenants that have the stored fingerprint, or else with the most frequent one. If one of them
    can't be read, the next is taken.
    """
    expected = stored or Counter(fingerprints[tenant.schema_name] for tenant in tenants).most_common(1)[0][0]
    equal = (tenant for tenant in tenants if fingerprints[tenant.schema_name] == expected)
    others = [tenant for tenant in tenants if fingerprints[tenant.schema_name] != expected]
    described = ((tenant, _objects(visitor, tenant)) for tenant in equal) if others else iter(())
    reference = next((each for each in described if each[1] is not None), None)
    for tenant in others:
        if reference is None:
            yield Difference(tenant, _HISTORY, [_UNNAMED_OBJECTS])
            continue
        name, objects = reference[0].schema_name, _objects(visitor, tenant)
        if objects is None:
            continue
        differing = differences(roles, objects, reference[1] or {}, tenant.schema_name, name)
        if differing:
            yield Difference(tenant, name, differing)


def differences(
    roles: ServiceRoles, objects: Objects, reference_objects: Objects, *schema_names: str
) -> list[DriftedObject]:
    """The objects that differ. The schema names are removed from both descriptions: if a schema is named like a table
    or an alias in its views, its description lacks that name too.
    """
    names = [form for one in schema_names for form in (f'"{one}".', f"{one}.")]
    here, reference = _without(names, objects), _without(names, reference_objects)
    service = frozenset(asdict(roles).values())
    return [
        DriftedObject(" ".join(key), effect_of(key, here, reference, service))
        for key in sorted({*here, *reference})
        if here.get(key) != reference.get(key)
    ]


def _without(names: Sequence[str], objects: Objects) -> Objects:
    found = dict(objects)
    for name in names:
        found = {key: words.replace(name, ".") for key, words in found.items()}
    return found


def _objects(visitor: Visitor[Connection], tenant: Tenant) -> Objects | None:
    return visitor.visit(tenant, lambda: objects_of(visitor.connection, tenant))
