"""Whether a tenant may be backed up as rows alone: only if its schema is what the history makes at its revision."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg

from tenant_schemas.backup.source import Drift, Source
from tenant_schemas.errors import TenantDrifted
from tenant_schemas.schema_diff.reference import stored_fingerprint
from tenant_schemas.tenant import Tenant

_NAMED_AT_MOST: Final = 20
# By schema.
Fingerprints = Mapping[str, str]


def find_drift(
    connection: psycopg.Connection[Any], source: Source, tenants: Sequence[Tenant], fingerprints: Fingerprints
) -> Drift:
    """What differs in each of these tenants. A schema that is, word for word, what was noted of the history is not
    looked at again.
    """
    revisions = {tenant.revision for tenant in tenants}
    noted = {revision: stored_fingerprint(connection, source.migrations, revision) for revision in revisions}
    unproven = [tenant for tenant in tenants if fingerprints.get(tenant.schema_name) != noted[tenant.revision]]
    return source.find_drift(unproven) if unproven else {}


def check_drift(tenant: Tenant, drift: Drift) -> None:
    """Raises TenantDrifted, naming what differs."""
    differing = drift.get(tenant.schema_name, ())
    if differing:
        named = ", ".join(differing[:_NAMED_AT_MOST])
        more = f" and {len(differing) - _NAMED_AT_MOST} more" if len(differing) > _NAMED_AT_MOST else ""
        raise TenantDrifted(
            f"{tenant.slug} is not what revision {tenant.revision} makes, in {named}{more}."
            " Mend it, or take pg_dump's file along (--with-dump)."
        )
