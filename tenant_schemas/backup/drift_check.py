"""Finds what a backup must know of a tenant's drift: a bundle has rows only, and a restore makes the schema from the
history. Only what may keep the rows from being loaded stops a backup; the bundle's manifest lists everything.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg

from tenant_schemas.backup.source import Source
from tenant_schemas.errors import BackupError, TenantDrifted
from tenant_schemas.schema_diff.compare import Drift
from tenant_schemas.schema_diff.effects import DriftedObject, Effect, told
from tenant_schemas.schema_diff.reference import stored_fingerprint
from tenant_schemas.tenant import Tenant

_NAMED_AT_MOST: Final = 20
# Fingerprints by schema name.
Fingerprints = Mapping[str, str]


def find_drift(
    connection: psycopg.Connection[Any], source: Source, tenants: Sequence[Tenant], fingerprints: Fingerprints
) -> Drift:
    """The drift of the tenants. A schema whose fingerprint equals the stored one of its revision
    has no drift and is not compared again.
    """
    revisions = {tenant.revision for tenant in tenants}
    stored = {revision: stored_fingerprint(connection, source.migrations, revision) for revision in revisions}
    unproven = [tenant for tenant in tenants if fingerprints.get(tenant.schema_name) != stored[tenant.revision]]
    return source.find_drift(unproven) if unproven else Drift({}, {})


def check_drift(tenant: Tenant, drift: Drift, *, with_dump: bool) -> tuple[DriftedObject, ...] | None:
    """The objects in which the tenant's schema differs; None if it is as those of other tenants, and could not be
    compared with the migrations. Raises BackupError if it could not be read and, unless the
    bundle is `with_dump`, TenantDrifted if a restore may refuse its rows.
    """
    failure = drift.failures.get(tenant.schema_name)
    if failure is not None:
        raise BackupError(f"{tenant.slug} can't be read: {failure}")
    differing = tuple(drift.objects.get(tenant.schema_name, ()))
    breaking = [each for each in differing if each.effect is Effect.BREAKS]
    if breaking and not with_dump:
        raise TenantDrifted(
            f"Schema {tenant.schema_name} of {tenant.slug} has drifted from revision {tenant.revision}, so that a "
            f"restore may refuse its rows: {told(breaking, _NAMED_AT_MOST)}. Repair these objects, or back up with "
            "--with-dump: pg_restore can restore the file of pg_dump."
        )
    return differing or (None if tenant.revision in drift.unproven else ())
