"""The URLs of resources, as the current request spells them."""

from typing import Any

from app.current import current_request
from tenant_schemas.flask import PATH_SLUG


def path_of(resource: str) -> str:
    """The path of a resource below /api/. It names the tenant if the request's path does."""
    slug = current_request().environ.get(PATH_SLUG)
    return f"/api/{slug}/{resource}" if slug else f"/api/{resource}"


def location(resource: str, resource_id: Any) -> dict[str, str]:
    """The header that names a new resource."""
    return {"Location": path_of(f"{resource}/{resource_id}")}
