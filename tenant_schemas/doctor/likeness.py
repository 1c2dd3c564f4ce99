"""Tenants' schemas differ from what the migrations make, and from each other, in nothing but their names.

PostgreSQL describes every object of every schema in words, without the schema's own name. Schemas at the head are
compared with a new one that the migrations make and that is rolled back. Where none can be made (who looks is no member
of the owner, or the server is read-only) and behind the head they are compared with each other: of schemas at one
revision that are not alike the most are right, so a fault that they all have is not seen. `shared` is like nothing.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

from sqlalchemy import Connection

from tenant_schemas.doctor.finding import Finding, Patient, error, warning
from tenant_schemas.doctor.registered import TENANTS_AT_ONCE
from tenant_schemas.doctor.words import Objects, fingerprints_of, objects_of
from tenant_schemas.migrations import History
from tenant_schemas.tenant import Tenant

_NAMED_AT_MOST = 20


def check(patient: Patient) -> Iterator[Finding]:
    if patient.new_schema.failure:
        what = f"the migrations could make no schema to compare the others with: {patient.new_schema.failure}"
        yield warning("likeness", "the migrations", what, "Mend what else was found, and look again.")
    fingerprints = _fingerprints(patient)
    head = patient.migrations.head(History.TENANT)
    for revision in sorted({tenant.revision for tenant in patient.tenants}):
        alike = [
            tenant for tenant in patient.tenants if tenant.revision == revision and tenant.schema_name in fingerprints
        ]
        if revision == head and patient.new_schema.objects is not None:
            yield from _compare_with_new(patient, alike, fingerprints)
        elif alike:
            yield from _compare_with_most(patient, alike, fingerprints)


def _compare_with_new(patient: Patient, tenants: list[Tenant], fingerprints: dict[str, str]) -> Iterator[Finding]:
    new = patient.new_schema
    for tenant in tenants:
        if fingerprints[tenant.schema_name] != new.fingerprint:
            different = _differences(_objects(patient, tenant), new.objects or {}, tenant.schema_name)
            if different:
                yield _finding(tenant, "what the migrations make", different)


def _compare_with_most(patient: Patient, tenants: list[Tenant], fingerprints: dict[str, str]) -> Iterator[Finding]:
    (usual, _), *_ = Counter(fingerprints[tenant.schema_name] for tenant in tenants).most_common(1)
    model = next(tenant for tenant in tenants if fingerprints[tenant.schema_name] == usual)
    others = [tenant for tenant in tenants if fingerprints[tenant.schema_name] != usual]
    model_objects = _objects(patient, model) if others else {}
    for tenant in others:
        different = _differences(_objects(patient, tenant), model_objects, tenant.schema_name, model.schema_name)
        if different:
            yield _finding(tenant, model.schema_name, different)


def _finding(tenant: Tenant, model: str, different: list[str]) -> Finding:
    shown = different[:_NAMED_AT_MOST]
    more = f" and {len(different) - len(shown)} more" if len(different) > len(shown) else ""
    what = f"it differs from {model} in {', '.join(shown)}{more}"
    remedy = "Find out which of the two is right; bring the other to it by hand, as the owner."
    return error("likeness", f"schema {tenant.schema_name}", what, remedy)


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

    keys = sorted(set(chain(objects, model_objects)))
    return [
        f"{kind} {name}" for kind, name in keys if words(objects, (kind, name)) != words(model_objects, (kind, name))
    ]


def _objects(patient: Patient, tenant: Tenant) -> Objects:
    with _letting_go(patient.connection):
        return objects_of(patient.connection, tenant)


def _fingerprints(patient: Patient) -> dict[str, str]:
    found: dict[str, str] = {}
    for start in range(0, len(patient.tenants), TENANTS_AT_ONCE):
        with _letting_go(patient.connection):
            found |= fingerprints_of(patient.connection, patient.tenants[start : start + TENANTS_AT_ONCE])
    return found


@contextmanager
def _letting_go(connection: Connection) -> Iterator[None]:
    """PostgreSQL locks the tables of a view that it describes. Going back to a savepoint lets go of them, so that a
    thousand tenants don't fill the server's table of locks.
    """
    savepoint = connection.begin_nested()
    try:
        yield
    finally:
        savepoint.rollback()
