"""Tenants' schemas equal the schema that the migrations create, and each other, in everything but the name.

Schemas at head are compared with the reference schema, which is rolled back. Schemas that are behind are compared with
each other, and so are all schemas if the reference can't be created. A schema whose stamp is stored is not described
again, unless the installation is examined in full. The shared schema has no reference and is not compared.
"""

from collections.abc import Iterator

from tenant_schemas.doctor.finding import Finding, Installation, error, warning
from tenant_schemas.migrations.history import History
from tenant_schemas.schema_diff.compare import Difference, compare, fingerprints_by_schema

_MAX_NAMED_OBJECTS = 20


def check(installation: Installation) -> Iterator[Finding]:
    reference = installation.reference
    if reference.failure:
        what = f"the reference schema could not be created: {reference.failure}"
        yield warning("schema_drift", "the migrations", what, "Fix the other findings and run the doctor again.")
    references = {installation.migrations.head(History.TENANT): reference}
    visitor, tenants = installation.visitor, installation.tenants
    fingerprints = fingerprints_by_schema(visitor, tenants, is_full=installation.is_full)
    yield from map(_finding, compare(visitor, tenants, fingerprints, references))


def _finding(difference: Difference) -> Finding:
    objects = difference.objects
    more = f" and {len(objects) - _MAX_NAMED_OBJECTS} more" if len(objects) > _MAX_NAMED_OBJECTS else ""
    what = f"it differs from {difference.reference_name} in {', '.join(objects[:_MAX_NAMED_OBJECTS])}{more}"
    remedy = "Find out which of the two is right, and change the other by hand, as the owner."
    if all(name.startswith("rights on ") for name in objects):
        remedy = f"Run `python -m scripts.repair_tenant {difference.tenant.slug}`."
    return error("schema_drift", f"schema {difference.tenant.schema_name}", what, remedy)
