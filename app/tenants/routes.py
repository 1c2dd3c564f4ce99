"""The tenants of the installation, for its operators, on the shared side; and a tenant's settings for its staff."""

from typing import Any
from uuid import UUID

from app.api.blueprint import Blueprint
from app.api.conditional import etag, if_match
from app.api.headers import gives_etag, gives_header, needs_version
from app.api.pagination import Page, PageQuery, cursor_to, position_in
from app.api.refusals import refuses
from app.auth.access import Access, access, actor
from app.auth.second_factor.demand import may_enter, refuse_entry
from app.tenants import provisioning_requests, service
from app.tenants.errors import ProvisioningNotFound, ProvisioningUnavailable, TenantTaken, TooManyProvisionings
from app.tenants.models import Provisioning
from app.tenants.schemas import (
    ConfigureTenantSchema,
    OwnSettingsSchema,
    ProvisioningSchema,
    ProvisionTenantSchema,
    TenantPageSchema,
    TenantSchema,
)
from app.tenants.service import OwnSettings, TenantView
from tenant_schemas.errors import SchemaBehind, TenantNotFound
from tenant_schemas.tenant import TenantStatus

blueprint = Blueprint("tenants", __name__, url_prefix="/api/admin", description="The tenants, for operators.")


@blueprint.get("/tenants")
@access(Access.OPERATOR)
@blueprint.arguments(PageQuery, location="query")
@blueprint.response(200, TenantPageSchema)
def list_tenants(query: dict[str, Any]) -> Page[TenantView]:
    """All tenants by slug, with totals by currency. A page may be short; only nextCursor tells whether it is
    the last. Those have no totals that demand a second factor, if the session has none.
    """
    found = service.list_tenants(after=position_in(query), limit=query["limit"], may_enter=may_enter)
    return Page(found.items, cursor_to(found.position, query) if found.position else None)


@blueprint.post("/tenants")
@access(Access.OPERATOR, "tenant.provision")
@gives_header("Location", "The request, to poll for its state.", on=(202,))
@blueprint.arguments(ProvisionTenantSchema)
@blueprint.response(202, ProvisioningSchema)
@refuses(TenantTaken, TooManyProvisionings, ProvisioningUnavailable)
def provision_tenant(body: dict[str, Any]) -> tuple[Provisioning, int, dict[str, str]]:
    """Request a new tenant. It is created soon; Location names the request to poll."""
    settings = {"currency": body["currency"], **_settings_of(body)}
    if "currencies" in settings:
        settings["currencies"] = list(dict.fromkeys((body["currency"], *body["currencies"])))
    asked = provisioning_requests.ask_for_tenant(
        slug=body["slug"], name=body.get("name", body["slug"]), settings=settings, actor=actor()
    )
    return asked, 202, {"Location": f"/api/admin/tenants/provisionings/{asked.id}"}


@blueprint.get("/tenants/provisionings/<uuid:provisioning_id>")
@access(Access.OPERATOR)
@blueprint.response(200, ProvisioningSchema)
@refuses(ProvisioningNotFound)
def show_provisioning(provisioning_id: UUID) -> Provisioning:
    """The state of a request for a tenant."""
    return provisioning_requests.get_provisioning(provisioning_id)


@blueprint.get("/tenants/<slug>")
@access(Access.OPERATOR)
@gives_etag
@blueprint.response(200, TenantSchema)
@refuses(TenantNotFound)
def show_tenant(slug: str) -> tuple[TenantView, dict[str, str]]:
    """One tenant, with totals by currency."""
    found = service.show_tenant(slug, refuse_entry=refuse_entry)
    return found, etag(found.version)


@blueprint.patch("/tenants/<slug>")
@access(Access.OPERATOR, "tenant.configure")
@needs_version
@blueprint.arguments(ConfigureTenantSchema)
@blueprint.response(200, TenantSchema)
@refuses(TenantNotFound, SchemaBehind)
def configure_tenant(body: dict[str, Any], slug: str) -> tuple[TenantView, dict[str, str]]:
    """Change name, status or limits of a tenant, from its next request on. Only the given members change."""
    status = TenantStatus(body["status"]) if "status" in body else None
    changes: dict[str, Any] = {"name": body.get("name"), "status": status, "settings": _settings_of(body)}
    service.configure_tenant(slug, if_match(), **changes, actor=actor(), refuse_entry=refuse_entry)
    found = service.show_tenant(slug, refuse_entry=lambda _: None)
    return found, etag(found.version)


@blueprint.get("/settings")
@access(Access.READER)
@blueprint.response(200, OwnSettingsSchema)
def show_settings() -> OwnSettings:
    """The settings of this tenant as they hold now, with the names of those that are defaults."""
    return service.own_settings()


def _settings_of(body: dict[str, Any]) -> dict[str, Any]:
    named = {name: body[name] for name in ("currencies", "locale") if name in body}
    return {**named, **body.get("settings", {})}
