"""Tenants' schemas differ from what the migrations make, and from each other, in nothing but their names.

Schemas at the head are compared with a new one that the migrations make and that is rolled back; those behind it, and
all where none can be made, with each other. `shared` is like nothing.
"""

from collections.abc import Iterator

from tenant_schemas.doctor.finding import Finding, Installation, error, warning
from tenant_schemas.migrations.history import History
from tenant_schemas.schema_diff.compare import Difference, compare, fingerprints_by_schema

_NAMED_AT_MOST = 20


def check(installation: Installation) -> Iterator[Finding]:
    if installation.new_schema.failure:
        what = f"the migrations could make no schema to compare the others with: {installation.new_schema.failure}"
        yield warning("likeness", "the migrations", what, "Mend what else was found, and look again.")
    references = {installation.migrations.head(History.TENANT): installation.new_schema}
    fingerprints = fingerprints_by_schema(installation.connection, installation.tenants)
    yield from map(_finding, compare(installation.connection, installation.tenants, fingerprints, references))


def _finding(difference: Difference) -> Finding:
    objects = difference.objects
    more = f" and {len(objects) - _NAMED_AT_MOST} more" if len(objects) > _NAMED_AT_MOST else ""
    what = f"it differs from {difference.reference_name} in {', '.join(objects[:_NAMED_AT_MOST])}{more}"
    remedy = "Find out which of the two is right; bring the other to it by hand, as the owner."
    return error("likeness", f"schema {difference.tenant.schema_name}", what, remedy)
