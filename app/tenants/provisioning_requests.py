"""Requests for new tenants. `provisioning_worker.py` creates the tenants later."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb

from app.auth.actors import Actor
from app.db import db
from app.errors import Invalid
from app.metrics.definitions import LIMITED
from app.metrics.observations import count
from app.tenancy import RESERVED_SLUGS
from app.tenant_settings import new_settings
from app.tenants.errors import ProvisioningNotFound, ProvisioningUnavailable, TenantTaken, TooManyProvisionings
from app.tenants.models import Provisioning
from app.tenants.provisioning_worker import provisioner
from tenant_schemas.errors import NameRefused
from tenant_schemas.flask import connections
from tenant_schemas.tenant import check_schema_name, check_slug, default_schema_name

MOST_PENDING: Final = 10

# Simultaneous requests do not count each other, so a few more may be pending.
_ASK: Final = """
    INSERT INTO shared.provisionings (slug, name, settings, requested_by, request_id, address)
    SELECT %s, %s, %s, %s, %s, %s
    WHERE (SELECT count(*) FROM shared.provisionings WHERE status = 'pending') < %s
    ON CONFLICT DO NOTHING
    RETURNING id"""
_IS_TAKEN: Final = """
    SELECT EXISTS (SELECT FROM shared.tenants WHERE slug = %(slug)s)
        OR EXISTS (SELECT FROM shared.provisionings WHERE slug = %(slug)s AND status = 'pending')"""


def ask_for_tenant(*, slug: str, name: str, settings: Mapping[str, Any], actor: Actor) -> Provisioning:
    """Store and commit the request for a tenant, so that it is created even if this process ends now.

    Raises ProvisioningUnavailable, Invalid, TenantTaken, TooManyProvisionings.
    """
    if not provisioner().is_able:
        raise ProvisioningUnavailable(
            "This service can't create tenants: set ADMIN_DATABASE_URL, or run `python -m scripts.provision_tenant`."
        )
    _check_name(slug)
    stored = new_settings(settings)
    _check_names_free(slug)
    asked = (slug, name, Jsonb(stored), actor.id, actor.request_id, actor.address, MOST_PENDING)
    made = connections().shared.one_statement(_ASK, asked)
    if not made:
        _check_names_free(slug)
        count(LIMITED, "pending", "provisioning")
        raise TooManyProvisionings(f"{MOST_PENDING} requests for tenants are pending; try again when some are done.")
    provisioner().wake()
    return get_provisioning(made[0][0])


def get_provisioning(provisioning_id: UUID) -> Provisioning:
    """The request with this id. Raises ProvisioningNotFound."""
    found = db.session.get(Provisioning, provisioning_id)
    if found is None:
        raise ProvisioningNotFound("There is no such provisioning.")
    return found


def _check_name(slug: str) -> None:
    try:
        check_slug(slug, RESERVED_SLUGS)
        check_schema_name(default_schema_name(slug))
    except NameRefused as error:
        raise Invalid.at("id", "name_refused", str(error)) from None


def _check_names_free(slug: str) -> None:
    if connections().shared.one_statement(_IS_TAKEN, {"slug": slug}, retry=True)[0][0]:
        raise TenantTaken(f"Tenant {slug!r} exists already, or is requested.")
