"""GET /api/me."""

from typing import Any

from app.http import Blueprint
from app.members import service
from app.members.schemas import MeSchema
from app.tenancy import Access, access, caller

blueprint = Blueprint("members", __name__, url_prefix="/api", description="Who you are and where you belong.")


@blueprint.get("/me")
@access(Access.USER)
@blueprint.response(200, MeSchema)
def show_me() -> dict[str, Any]:
    """The user of the access token, and the tenants they belong to."""
    user = service.get_user(caller().user_id)
    return {
        "user_id": user.id,
        "email": user.email,
        "name": user.name,
        "is_operator": user.is_operator,
        "memberships": service.memberships_of(user.id),
    }
