"""Which tenants' queues are consumed."""

from collections.abc import Collection, Mapping
from typing import Final
from uuid import UUID

from flask import Flask

from tenant_schemas.flask import connections

# Active tenants with an API key that moves money, whose queue somebody may write into.
_SENDING: Final = """
    SELECT t.id, t.slug FROM shared.tenants t
    WHERE t.status = 'active' AND (%s::text[] IS NULL OR t.slug = ANY (%s)) AND EXISTS (
        SELECT FROM shared.api_keys k
        WHERE k.tenant_id = t.id AND k.role = 'service' AND k.revoked_at IS NULL AND k.expires_at > now())"""


def tenants_with_senders(app: Flask, slugs: Collection[str]) -> Mapping[UUID, str]:
    """The slugs of active tenants with a service's API key, by their ids; only of these slugs if there are any."""
    wanted = list(slugs) or None
    with app.app_context():
        rows = connections().shared.one_statement(_SENDING, (wanted, wanted), retry=True)
    return {tenant_id: str(slug) for tenant_id, slug in rows}
