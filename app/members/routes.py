"""GET /api/me, and the members of a tenant for its admins."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.api.blueprint import Blueprint
from app.api.conditional import etag, if_match
from app.api.headers import gives_etag, gives_location, needs_version
from app.api.links import location
from app.api.pagination import Page, paginate, with_total
from app.api.refusals import refuses
from app.api_keys.errors import ApiKeysUndecided
from app.api_keys.handover import KeyChoice
from app.auth.access import Access, access, actor, caller
from app.members import service
from app.members.errors import OwnMembership
from app.members.schemas import (
    AddMemberSchema,
    ChangeMemberSchema,
    MemberListQuery,
    MemberPageSchema,
    MemberRoleSchema,
    MemberSchema,
    MeSchema,
    RemoveMemberQuery,
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
        "memberships": users.shown_memberships_of(user.id),
    }


@blueprint.get("/admin/members")
@access(Access.READER)
@blueprint.arguments(MemberListQuery, location="query")
@blueprint.response(200, MemberPageSchema)
def list_members(query: dict[str, Any]) -> Page[sa.Row[Any]]:
    """The members of this tenant, by address."""
    filters = {name: query.get(name) for name in ("q", "role")}
    page = paginate(
        query, lambda after, limit: service.list_members(after=after, limit=limit, **filters), lambda item: [item.email]
    )
    return with_total(page, query, lambda most: service.count_members(most, **filters))


@blueprint.get("/admin/members/<uuid:user_id>")
@access(Access.READER)
@blueprint.response(200, MemberSchema)
@gives_etag
@refuses(MemberNotFound)
def show_member(user_id: UUID) -> tuple[sa.Row[Any], dict[str, str]]:
    """One member of this tenant."""
    member = service.get_member(user_id)
    return member, etag(member.version)


@blueprint.post("/admin/members")
@access(Access.ADMIN, "member.add")
@gives_location
@blueprint.arguments(AddMemberSchema)
@blueprint.response(201, MemberRoleSchema)
@blueprint.alt_response(200, schema=MemberRoleSchema)
@refuses(OwnMembership, ApiKeysUndecided)
def add_member(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Add a member by address: 201, or 200 with the role changed if the user is a member already.

    A new user has no password. The user sets one as a forgotten one, or logs in through the OpenID provider. To let the
    user know, and choose, invite the address instead.
    """
    user_id, is_new = service.put_member(
        body["email"], body.get("name"), Role(body["role"]), keys=_choice(body), actor=actor()
    )
    shown = {"user_id": user_id, "role": body["role"]}
    return (shown, 201, location("admin/members", user_id)) if is_new else (shown, 200, {})


@blueprint.patch("/admin/members/<uuid:user_id>")
@access(Access.ADMIN, "member.change")
@needs_version
@blueprint.arguments(ChangeMemberSchema)
@blueprint.response(200, MemberRoleSchema)
@refuses(OwnMembership, MemberNotFound, ApiKeysUndecided)
def change_member(body: dict[str, Any], user_id: UUID) -> tuple[dict[str, Any], dict[str, str]]:
    """Change a member's role in this tenant, from the member's next request on.

    API keys depend on the right of the admin who answers for them. If an admin becomes less, the request must choose
    what becomes of valid ones.
    """
    version = service.change_role(user_id, Role(body["role"]), if_match(), keys=_choice(body), actor=actor())
    return {"user_id": user_id, "role": body["role"]}, etag(version)


@blueprint.delete("/admin/members/<uuid:user_id>")
@access(Access.ADMIN, "member.remove")
@blueprint.arguments(RemoveMemberQuery, location="query")
@blueprint.response(204)
@refuses(OwnMembership, MemberNotFound, ApiKeysUndecided)
def remove_member(query: dict[str, Any], user_id: UUID) -> None:
    """Remove a member from the next request on. The wallet and its history stay.

    If valid API keys depend on the member's right, the request must choose what becomes of them.
    """
    service.remove_member(user_id, keys=_choice(query), actor=actor())


def _choice(given: dict[str, Any]) -> KeyChoice | None:
    return KeyChoice(given["api_keys"]) if "api_keys" in given else None
