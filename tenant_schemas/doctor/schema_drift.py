"""Tenants' schemas equal the schema that the migrations create, and each other, in everything but the name.

Schemas at head are compared with the reference schema, which is rolled back. Schemas that are behind are compared with
each other, and so are all schemas if the reference can't be created. A schema whose stamp is stored is not described
again, unless the installation is examined in full. The shared schema has no reference and is not compared. Differences
that the installation accepts are left out; harmless ones are a warning.
"""

from collections.abc import Iterator

from tenant_schemas.doctor.finding import Finding, Installation, error, warning
from tenant_schemas.migrations.history import History
from tenant_schemas.schema_diff.compare import Difference, compare, fingerprints_by_schema
from tenant_schemas.schema_diff.effects import Effect, told

_MAX_NAMED_OBJECTS = 20


def check(installation: Installation) -> Iterator[Finding]:
    reference = installation.reference
    if reference.failure:
        what = f"the reference schema could not be created: {reference.failure}"
        yield warning("schema_drift", "the migrations", what, "Fix the other findings and run the doctor again.")
    references = {installation.migrations.head(History.TENANT): reference}
    visitor, tenants = installation.visitor, installation.tenants
    fingerprints = fingerprints_by_schema(visitor, tenants, is_full=installation.is_full)
    for difference in compare(visitor, installation.roles, tenants, fingerprints, references):
        yield from _findings(difference, installation)


def _findings(difference: Difference, installation: Installation) -> Iterator[Finding]:
    objects = installation.accepted.without_accepted(difference.objects)
    if not objects:
        return
    where = f"schema {difference.tenant.schema_name}"
    what = f"it differs from {difference.reference_name} in {told(objects, _MAX_NAMED_OBJECTS)}"
    if all(each.effect is Effect.HARMLESS for each in objects):
        remedy = "Keep it, and accept it (ACCEPTED_DRIFT_FILE), or remove it."
        yield warning("schema_drift", where, what, remedy)
        return
    if all(each.name.startswith("rights on ") for each in objects):
        yield error("schema_drift", where, what, f"Run `python -m scripts.repair_tenant {difference.tenant.slug}`.")
        return
    remedy = (
        "Find out which of the two is right, and change the other by hand, as the owner. What is to stay can be "
        "accepted (ACCEPTED_DRIFT_FILE), unless it breaks a restore."
    )
    yield error("schema_drift", where, what, remedy)
