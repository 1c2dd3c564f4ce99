"""GET /api/me, and the members of a tenant for its admins."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.api.blueprint import Blueprint
from app.api.pagination import Page, paginate
from app.api.refusals import refuses
from app.auth.access import Access, access, actor, caller
from app.members import service
from app.members.errors import OwnMembership
from app.members.schemas import (
    AddMemberSchema,
    ChangeMemberSchema,
    MemberListQuery,
    MemberPageSchema,
    MemberRoleSchema,
    MeSchema,
)
from app.users import service as users
from app.users.errors import MemberNotFound
from app.users.models import Role

blueprint = Blueprint(
    "members", __name__, url_prefix="/api", description="The current user, and the members of a tenant."
)


@blueprint.get("/me")
@access(Access.USER)
@blueprint.response(200, MeSchema)
@refuses(MemberNotFound)
def show_me() -> dict[str, Any]:
    """The user of the access token, and the user's memberships."""
    user = users.get_user(caller().user_id)
    return {
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "is_operator": user.is_operator,
        "memberships": users.memberships_of(user.id),
    }


@blueprint.get("/admin/members")
@access(Access.READER)
@blueprint.arguments(MemberListQuery, location="query")
@blueprint.response(200, MemberPageSchema)
def list_members(query: dict[str, Any]) -> Page[sa.Row[Any]]:
    """The members of this tenant, by address."""
    filters = {name: query.get(name) for name in ("q", "role")}
    return paginate(
        query, lambda after, limit: service.list_members(after=after, limit=limit, **filters), lambda item: [item.email]
    )


@blueprint.post("/admin/members")
@access(Access.ADMIN, "member.add")
@blueprint.arguments(AddMemberSchema)
@blueprint.response(201, MemberRoleSchema)
@blueprint.alt_response(200, schema=MemberRoleSchema)
@refuses(OwnMembership)
def add_member(body: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Add a member by address: 201, or 200 with the role changed if the user is a member already.

    A new user has no password. The user logs in through the OpenID provider, or after an operator has set a password.
    """
    user_id, is_new = service.put_member(body["email"], body.get("name"), Role(body["role"]), actor=actor())
    return {"user_id": user_id, "role": body["role"]}, 201 if is_new else 200


@blueprint.patch("/admin/members/<uuid:user_id>")
@access(Access.ADMIN, "member.change")
@blueprint.arguments(ChangeMemberSchema)
@blueprint.response(200, MemberRoleSchema)
@refuses(OwnMembership, MemberNotFound)
def change_member(body: dict[str, Any], user_id: UUID) -> dict[str, Any]:
    """Change a member's role in this tenant, from the member's next request on."""
    service.change_role(user_id, Role(body["role"]), actor=actor())
    return {"user_id": user_id, "role": body["role"]}


@blueprint.delete("/admin/members/<uuid:user_id>")
@access(Access.ADMIN, "member.remove")
@blueprint.response(204)
@refuses(OwnMembership, MemberNotFound)
def remove_member(user_id: UUID) -> None:
    """Remove a member from the next request on. The wallet and its history stay."""
    service.remove_member(user_id, actor=actor())
