"""The API keys of a tenant, for its admins. No API key can manage API keys."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.api.blueprint import Blueprint
from app.api.headers import gives_location
from app.api.links import location
from app.api.pagination import Page, PageQuery, paginate
from app.api.refusals import refuses
from app.api_keys import service
from app.api_keys.errors import KeyNotFound
from app.api_keys.schemas import ApiKeyPageSchema, ApiKeySchema, CreateApiKeySchema, NewApiKeySchema
from app.auth.access import Access, access, actor

blueprint = Blueprint("keys", __name__, url_prefix="/api/admin", description="Credentials of services.")


@blueprint.get("/api-keys")
@access(Access.ADMIN)
@blueprint.arguments(PageQuery, location="query")
@blueprint.response(200, ApiKeyPageSchema)
def list_api_keys(query: dict[str, Any]) -> Page[sa.Row[Any]]:
    """This tenant's API keys, newest first, including expired and revoked ones. Secrets are not stored and
    not shown.
    """
    return paginate(
        query,
        lambda after, limit: service.list_keys(after=after, limit=limit),
        lambda item: [item.created_at, item.id],
    )


@blueprint.get("/api-keys/<uuid:key_id>")
@access(Access.ADMIN)
@blueprint.response(200, ApiKeySchema)
@refuses(KeyNotFound)
def show_api_key(key_id: UUID) -> sa.Row[Any]:
    """One of this tenant's API keys, also an expired or a revoked one."""
    return service.get_key(key_id)


@blueprint.post("/api-keys")
@access(Access.ADMIN, "api_key.create")
@gives_location
@blueprint.arguments(CreateApiKeySchema)
@blueprint.response(201, NewApiKeySchema)
def create_api_key(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Create a key for a service: `service` reads all of this tenant and moves money, `auditor` reads all."""
    key, text = service.create_key(**body, actor=actor())
    return key._asdict() | {"key": text}, 201, location("admin/api-keys", key.id)


@blueprint.delete("/api-keys/<uuid:key_id>")
@access(Access.ADMIN, "api_key.revoke")
@blueprint.response(204)
@refuses(KeyNotFound)
def revoke_api_key(key_id: UUID) -> None:
    """Revoke a key from the next request on. It stays in the list."""
    service.revoke_key(key_id, actor=actor())
