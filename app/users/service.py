"""Users: look-up by id and by address, credentials, memberships. All of it is in the shared schema."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import UUID

import sqlalchemy as sa

from app.db import db, tenants
from app.money import fraction_digits
from app.tenant_settings import currencies_of, locale_name_of
from app.users.errors import MemberNotFound, UserExists
from app.users.models import Membership, User
from tenant_schemas.flask import connections
from tenant_schemas.tenant import TenantStatus


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a log-in needs: the user's id, the password's hash, address and name, which a password may not be, whether
    the user is active, and whether a second factor is on.
    """

    user_id: UUID
    password_hash: str | None
    email: str
    name: str
    is_active: bool
    has_second_factor: bool


_CREDENTIALS: Final[LiteralString] = """
    SELECT u.id, u.password_hash, u.email, u.name, u.status = 'active', EXISTS (
        SELECT FROM shared.second_factors f WHERE f.user_id = u.id AND f.confirmed_at IS NOT NULL)
    FROM shared.users u WHERE """
_CREDENTIALS_BY_EMAIL: Final[LiteralString] = _CREDENTIALS + "u.email = %s"
_CREDENTIALS_BY_ID: Final[LiteralString] = _CREDENTIALS + "u.id = %s"


def credentials(email: str) -> Credentials | None:
    """The credentials of the user with this address, in any case. It leaves no db transaction open, because hashing
    follows.
    """
    rows = connections().shared.one_statement(_CREDENTIALS_BY_EMAIL, (email.strip().lower(),), retry=True)
    return Credentials(*rows[0]) if rows else None


def credentials_of(user_id: UUID) -> Credentials:
    """The credentials of the user with this id. Raises MemberNotFound."""
    rows = connections().shared.one_statement(_CREDENTIALS_BY_ID, (user_id,), retry=True)
    if not rows:
        raise MemberNotFound("There is no such user.")
    return Credentials(*rows[0])


def find_user(email: str) -> User | None:
    """The user with this address, in any case; None if there is none."""
    return db.session.scalar(sa.select(User).where(User.email == email.strip().lower()))


def get_user(user_id: UUID) -> User:
    """The user with this id. Raises MemberNotFound."""
    user = db.session.get(User, user_id)
    if user is None:
        raise MemberNotFound("There is no such user.")
    return user


def memberships_of(user_id: UUID) -> list[dict[str, Any]]:
    """The user's memberships in active tenants, by slug."""
    return [{"tenant_id": row.slug, "role": row.role} for row in _memberships(user_id)]


def shown_memberships_of(user_id: UUID) -> list[dict[str, Any]]:
    """`memberships_of` with the tenants' names, currencies and locales."""
    return [
        {
            "tenant_id": row.slug,
            "tenant_name": row.name,
            "role": row.role,
            "currencies": shown_currencies(row.settings),
            "locale": locale_name_of(row.settings),
        }
        for row in _memberships(user_id)
    ]


def _memberships(user_id: UUID) -> sa.Result[str, str, Any, str]:
    query = (
        sa.select(tenants.c.slug, tenants.c.name, tenants.c.settings, Membership.role)
        .join(tenants, tenants.c.id == Membership.tenant_id)
        .where(Membership.user_id == user_id, tenants.c.status == TenantStatus.ACTIVE)
        .order_by(tenants.c.slug)
    )
    return db.session.execute(query)


def shown_currencies(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The currencies of a tenant with these settings, the main one first, with their fraction digits."""
    return [{"code": code, "fraction_digits": fraction_digits(code)} for code in currencies_of(settings)]


def add_user(email: str, name: str, password_hash: str | None, *, is_operator: bool = False) -> User:
    """Create a user and flush. Raises UserExists."""
    if find_user(email):
        raise UserExists(f"A user with the address {email} exists already.")
    user = User(email=email.strip().lower(), name=name, password_hash=password_hash, is_operator=is_operator)
    db.session.add(user)
    db.session.flush()
    return user


def set_password(email: str, password_hash: str) -> User:
    """Set a user's password and flush; the caller must end the user's sessions. Raises MemberNotFound."""
    user = find_user(email)
    if user is None:
        raise MemberNotFound(f"There is no user with the address {email}.")
    user.password_hash = password_hash
    db.session.flush()
    return user
