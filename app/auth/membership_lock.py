"""The lock of a tenant's memberships: changes of members, invitations and API keys run one after another."""

from typing import cast
from uuid import UUID

import sqlalchemy as sa

from app.auth.actors import Actor, ActorKind
from app.auth.errors import AdminRequired
from app.db import db, tenants
from app.users.models import Membership, Role, User
from tenant_schemas.tenant import Tenant


def lock_members(tenant: Tenant, actor: Actor) -> None:
    """Lock the tenant's row in the registry. Works on the shared side. Raises AdminRequired if the actor was an admin
    or an operator when the request came, and is no longer.
    """
    db.session.execute(sa.select(tenants.c.id).where(tenants.c.id == tenant.id).with_for_update(key_share=True))
    if actor.kind is ActorKind.USER and role_of(tenant, cast(UUID, actor.id)) is not Role.ADMIN:
        raise AdminRequired("You are no longer an admin of this tenant.")
    if actor.kind is ActorKind.OPERATOR and not is_operator(cast(UUID, actor.id)):
        raise AdminRequired("You are no longer an operator of the installation.")


def role_of(tenant: Tenant, user_id: UUID) -> Role | None:
    """The user's role in the tenant; None for a user who is no member."""
    of_user = (Membership.tenant_id == tenant.id, Membership.user_id == user_id)
    role = db.session.scalar(sa.select(Membership.role).where(*of_user))
    return Role(role) if role else None


def is_operator(user_id: UUID) -> bool:
    """Whether the user is an operator of the installation, and not disabled. Works on the shared side."""
    return bool(db.session.scalar(sa.select(User.is_operator).where(User.id == user_id, User.status == "active")))
