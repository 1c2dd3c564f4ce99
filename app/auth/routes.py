"""POST /api/auth/login."""

from typing import Any

from flask import current_app

from app.auth import service
from app.auth.schemas import AccessTokenSchema, LoginSchema
from app.auth.tokens import TokenMint
from app.http import Blueprint
from app.members.service import memberships_of
from app.tenancy import Access, access, named_tenant, names_tenant

blueprint = Blueprint("auth", __name__, url_prefix="/api/auth", description="Log in.")


@blueprint.post("/login")
@access(Access.ANYONE)
@names_tenant
@blueprint.arguments(LoginSchema)
@blueprint.response(200, AccessTokenSchema)
def login(credentials: dict[str, str]) -> dict[str, Any]:
    """Trade an address and a password for an access token.

    If the request names a tenant, the token is for that tenant only.
    """
    user_id = service.authenticate(**credentials)
    tenant = named_tenant(user_id)
    mint: TokenMint = current_app.extensions["token_mint"]
    return {
        "access_token": mint.issue(user_id, tenant.id if tenant else None),
        "token_type": "Bearer",
        "expires_in": mint.lifetime_seconds,
        "memberships": memberships_of(user_id),
    }
