"""Users, memberships and former members, and what a tenant may read of its own ones (shared schema)."""

from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db import SharedModel
from tenant_schemas.tenant import SHARED_SCHEMA


class Role(StrEnum):
    """A user's or API key's role in one tenant. `OPENS` in app/auth/access.py lists the roles for each kind
    of route.
    """

    MEMBER = "member"  # has wallets
    ADMIN = "admin"  # has wallets, and manages all wallets of the tenant
    AUDITOR = "auditor"  # reads all, moves nothing
    SERVICE = "service"  # an API key: reads all and moves money, manages nothing
    OPERATOR = "operator"  # of the installation: an admin's rights, for one request


MEMBERSHIP_ROLES: Final = (Role.MEMBER, Role.ADMIN, Role.AUDITOR)


KEY_ROLES: Final = (Role.SERVICE, Role.AUDITOR)


class User(SharedModel):
    """A user, in all tenants. Users are anonymised when they leave, and never deleted: an address below .invalid is no
    person's, and PostgreSQL then forgets the user as a former member of every tenant.
    """

    __tablename__ = "users"
    __table_args__ = (sa.UniqueConstraint("email", name="users_email_key"), {"schema": SHARED_SCHEMA})

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=sa.func.gen_random_uuid())
    email: Mapped[str] = mapped_column(sa.Text)
    name: Mapped[str] = mapped_column(sa.Text)
    password_hash: Mapped[str | None] = mapped_column(sa.Text)
    is_operator: Mapped[bool] = mapped_column(server_default=sa.false())
    status: Mapped[str] = mapped_column(sa.Text, server_default="active")
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())


class Membership(SharedModel):
    """A user's role in one tenant, and the user's name there if it differs. `tenant_role` repeats the tenant's login
    for row-level security.
    """

    __tablename__ = "memberships"
    __table_args__ = (
        sa.ForeignKeyConstraint(
            ["tenant_id", "tenant_role"],
            ["shared.tenants.id", "shared.tenants.role_name"],
            name="memberships_tenant_fkey",
            onupdate="CASCADE",
        ),
        sa.Index("memberships_user_id_idx", "user_id"),
        sa.Index("memberships_tenant_role_user_id_idx", "tenant_role", "user_id"),
        {"schema": SHARED_SCHEMA},
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey("shared.users.id", name="memberships_user_id_fkey"), primary_key=True
    )
    tenant_role: Mapped[str] = mapped_column(sa.Text)
    name: Mapped[str | None] = mapped_column(sa.Text)
    role: Mapped[str] = mapped_column(sa.Text)
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())


class FormerMember(SharedModel):
    """Who a removed member was, as the tenant knew them. Triggers write it."""

    __tablename__ = "former_members"
    __table_args__ = (
        sa.ForeignKeyConstraint(
            ["tenant_id", "tenant_role"],
            ["shared.tenants.id", "shared.tenants.role_name"],
            name="former_members_tenant_fkey",
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        sa.Index("former_members_user_id_idx", "user_id"),
        sa.Index("former_members_tenant_id_removed_at_idx", "tenant_id", "removed_at"),
        sa.Index("former_members_tenant_role_user_id_idx", "tenant_role", "user_id"),
        {"schema": SHARED_SCHEMA},
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey("shared.users.id", name="former_members_user_id_fkey", ondelete="CASCADE"), primary_key=True
    )
    tenant_role: Mapped[str] = mapped_column(sa.Text)
    email: Mapped[str] = mapped_column(sa.Text)
    name: Mapped[str] = mapped_column(sa.Text)
    removed_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())


# A view, so it is in no metadata. A tenant's login reads it and sees the tenant's own members only.
member_directory = sa.table(
    "member_directory",
    sa.column("user_id", sa.Uuid),
    sa.column("email", sa.Text),
    sa.column("name", sa.Text),
    sa.column("role", sa.Text),
    schema=SHARED_SCHEMA,
)

# The members and the former ones, whose `removed_at` is not null: for views of money, which outlives memberships.
all_members = sa.table(
    "all_members",
    sa.column("user_id", sa.Uuid),
    sa.column("email", sa.Text),
    sa.column("name", sa.Text),
    sa.column("removed_at", sa.DateTime(timezone=True)),
    schema=SHARED_SCHEMA,
)
