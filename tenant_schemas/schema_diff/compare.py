"""Whether tenants' schemas are what the history makes at their revision, and in which objects they are not.

PostgreSQL describes every object of every schema in words, without the schema's own name. Where the history's own is
not known and can't be made, schemas of one revision are compared with each other: the most alike are right, so a fault
that they all have is not seen.
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
from tenant_schemas.tenant import Tenant

TENANTS_AT_ONCE = 100
_WITNESSES = 10
_THE_HISTORY = "what the migrations make"
_NO_RIGHTS = "it takes the owner's rights, and a server that may be written to"
_NAMELESS = "something that can only be named with the owner's rights"


@dataclass(frozen=True, slots=True)
class Difference:
    """The objects of a tenant's schema that are not like `model`'s, which is the history's own or another schema."""

    tenant: Tenant
    model: str
    objects: list[str]


@dataclass(frozen=True, slots=True)
class Drift:
    """`objects` names what differs, by schema, and no schema in which nothing does. `unproven` says for which revisions
    the history's own could not be made, and why.
    """

    objects: dict[str, list[str]]
    unproven: dict[str, str]


def drifted_objects(connection: Connection, migrations: Migrations, tenants: Sequence[Tenant]) -> dict[str, list[str]]:
    """What differs in each of these schemas, by its name, and nothing for those in which nothing does."""
    return find_drift(connection, migrations, tenants).objects


def find_drift(connection: Connection, migrations: Migrations, tenants: Sequence[Tenant]) -> Drift:
    """The same, and how well it is known. It keeps no lock, but for the note that it makes of a new reference's
    fingerprint; to keep that, commit the open db transaction.
    """
    fingerprints = fingerprints_by_schema(connection, tenants)
    references = {
        revision: _reference(connection, migrations, alike, fingerprints) for revision, alike in _by_revision(tenants)
    }
    nameless = {
        tenant.revision
        for tenant in tenants
        if references[tenant.revision].objects is None
        and fingerprints.get(tenant.schema_name) != references[tenant.revision].fingerprint
    }
    witnesses = _witnesses(connection, tenants, nameless)
    fingerprints |= fingerprints_by_schema(connection, witnesses)
    asked = {tenant.schema_name for tenant in tenants}
    objects = {
        difference.tenant.schema_name: difference.objects
        for difference in compare(connection, [*tenants, *witnesses], fingerprints, references)
        if difference.tenant.schema_name in asked
    }
    for tenant, at in revisions_of(connection, tenants):
        if at != tenant.revision:
            wrong = f"{VERSION_TABLE}: {at or 'nothing'}, and the registry says {tenant.revision}"
            objects[tenant.schema_name] = [wrong, *objects.get(tenant.schema_name, [])]
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
    """Each schema that differs from the reference of its revision, or where there is none, from the most others that
    are at it. A schema that does not exist has no fingerprint, and is like any other.
    """
    there = [tenant for tenant in tenants if tenant.schema_name in fingerprints]
    for revision, alike in _by_revision(there):
        reference = references.get(revision, Reference())
        if reference.objects is not None:
            yield from _compare_with_reference(connection, alike, fingerprints, reference)
        else:
            yield from _compare_with_most(connection, alike, fingerprints, reference.fingerprint)


def fingerprints_by_schema(connection: Connection, tenants: Sequence[Tenant]) -> dict[str, str]:
    """The fingerprint of each schema that exists, some tenants to a query."""
    found: dict[str, str] = {}
    for some in _some_at_a_time(tenants):
        with _releasing_locks(connection):
            found |= fingerprints_of(connection, some)
    return found


def revisions_of(connection: Connection, tenants: Sequence[Tenant]) -> Iterator[tuple[Tenant, str | None]]:
    """Each tenant with what its own schema says of its revision, some tenants to a query."""
    query = """
        SELECT n.nspname FROM pg_namespace n
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = %s AND c.relkind = 'r'"""
    versioned = set(connection.exec_driver_sql(query, (VERSION_TABLE,)).scalars())
    for some in _some_at_a_time(tenants):
        parts = [
            sql.SQL("SELECT {}, string_agg(version_num, ' ') FROM {}").format(
                sql.Literal(tenant.schema_name), sql.Identifier(tenant.schema_name, VERSION_TABLE)
            )
            for tenant in some
            if tenant.schema_name in versioned
        ]
        with _releasing_locks(connection):
            rows = connection.exec_driver_sql(sql.SQL(" UNION ALL ").join(parts).as_string()).all() if parts else []
        found = {str(schema_name): revision for schema_name, revision in rows}
        for tenant in some:
            yield tenant, found.get(tenant.schema_name)


def _reference(
    connection: Connection, migrations: Migrations, tenants: Sequence[Tenant], fingerprints: Mapping[str, str]
) -> Reference:
    """What was noted, if one of these is like it, and so tells what differs in the others; else it is made."""
    revision = tenants[0].revision
    noted = stored_fingerprint(connection, migrations, revision)
    if noted and any(fingerprints.get(tenant.schema_name) == noted for tenant in tenants):
        return Reference(noted)
    reference = make_reference(connection, migrations, tenants, revision)
    if reference.fingerprint and reference.fingerprint != noted:
        store_fingerprint(connection, migrations, revision, reference.fingerprint)
    return reference if reference.fingerprint else replace(reference, fingerprint=noted)


def _witnesses(connection: Connection, tenants: Sequence[Tenant], revisions: Set[str]) -> list[Tenant]:
    """Some others at the revisions of which there is nothing better to compare with."""
    known = {tenant.id for tenant in tenants}
    others = [tenant for tenant in all_tenants(connection) if tenant.id not in known] if revisions else []
    return [
        tenant for revision, alike in _by_revision(others) for tenant in alike[:_WITNESSES] if revision in revisions
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
                yield Difference(tenant, _THE_HISTORY, objects)


def _compare_with_most(
    connection: Connection, tenants: Sequence[Tenant], fingerprints: Mapping[str, str], noted: str | None
) -> Iterator[Difference]:
    """Where a fingerprint was noted, those that have it are right, however few."""
    usual = noted or Counter(fingerprints[tenant.schema_name] for tenant in tenants).most_common(1)[0][0]
    model = next((tenant for tenant in tenants if fingerprints[tenant.schema_name] == usual), None)
    others = [tenant for tenant in tenants if fingerprints[tenant.schema_name] != usual]
    if model is None:
        yield from (Difference(tenant, _THE_HISTORY, [_NAMELESS]) for tenant in others)
        return
    model_objects = _objects(connection, model) if others else {}
    for tenant in others:
        objects = _differences(_objects(connection, tenant), model_objects, tenant.schema_name, model.schema_name)
        if objects:
            yield Difference(tenant, model.schema_name, objects)


def _differences(objects: Objects, model_objects: Objects, *schema_names: str) -> list[str]:
    """A schema named like a table or an alias in its views loses more than its own name in its words; so the other
    loses that name too before the two are compared.
    """
    names = [form for one in schema_names for form in (f'"{one}".', f"{one}.")]

    def words(objects: Objects, key: tuple[str, str]) -> str | None:
        found = objects.get(key)
        for name in names:
            found = found and found.replace(name, ".")
        return found

    keys = sorted({*objects, *model_objects})
    return [
        f"{kind} {name}" for kind, name in keys if words(objects, (kind, name)) != words(model_objects, (kind, name))
    ]


def _objects(connection: Connection, tenant: Tenant) -> Objects:
    with _releasing_locks(connection):
        return objects_of(connection, tenant)


def _some_at_a_time(tenants: Sequence[Tenant]) -> Iterator[Sequence[Tenant]]:
    return (tenants[start : start + TENANTS_AT_ONCE] for start in range(0, len(tenants), TENANTS_AT_ONCE))


@contextmanager
def _releasing_locks(connection: Connection) -> Iterator[None]:
    """PostgreSQL locks the tables of a view that it describes. Going back to a savepoint lets go of them, so that a
    thousand tenants don't fill the server's table of locks.
    """
    savepoint = connection.begin_nested()
    try:
        yield
    finally:
        savepoint.rollback()
