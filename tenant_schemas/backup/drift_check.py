"""Checks that a tenant's schema has not drifted from its revision: a backup has rows only, and a restore makes the
schema from the history.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg

from tenant_schemas.backup.source import Source
from tenant_schemas.errors import BackupError, TenantDrifted
from tenant_schemas.schema_diff.compare import Drift
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


def check_drift(tenant: Tenant, drift: Drift) -> None:
    """Raises TenantDrifted, which names the differing objects, or BackupError if the schema could not be read."""
    failure = drift.failures.get(tenant.schema_name)
    if failure is not None:
        raise BackupError(f"{tenant.slug} can't be read: {failure}")
    differing = drift.objects.get(tenant.schema_name, ())
    if differing:
        named = ", ".join(differing[:_NAMED_AT_MOST])
        more = f" and {len(differing) - _NAMED_AT_MOST} more" if len(differing) > _NAMED_AT_MOST else ""
        raise TenantDrifted(
            f"Schema {tenant.schema_name} of {tenant.slug} has drifted from revision {tenant.revision}: {named}{more}."
            " Repair these objects, or back up with --with-dump."
        )
