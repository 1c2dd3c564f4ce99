"""Creating, listing and revoking the API keys of the bound tenant. Commits nothing.

The keys are in the shared schema, where row-level security does not separate tenants for the service's own login. So
every query here names the tenant.
"""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any, Final
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from app.api_keys.errors import KeyNotFound
from app.api_keys.models import ApiKey
from app.audit.service import commit_entry
from app.auth.actors import Actor
from app.auth.credentials import KEY_PREFIX
from app.auth.membership_lock import lock_members
from app.auth.named_actors import OPERATOR_NAME
from app.db import db
from app.errors import Invalid
from app.users.models import FormerMember, Membership, User
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import shared_side

SECRET_BYTES: Final = 32
LONGEST_LIFE: Final = timedelta(days=366)
FORGOTTEN_NAME: Final = "no longer known"  # of a user whom the tenant has forgotten, or who was an operator


def create_key(name: str, role: str, expires_at: datetime, *, actor: Actor) -> tuple[sa.Row[Any], str]:
    """A new key, and its text, which only this answer contains.

    Locks the tenant's row in the registry, as changes of members do: who removes the maker must choose for this key
    too. Raises AdminRequired, and Invalid for an expiry in the past or too far ahead.
    """
    _refuse_wrong_expiry(expires_at)
    tenant, secret = current_tenant(), token_urlsafe(SECRET_BYTES)
    key = ApiKey(
        id=uuid4(),
        tenant_id=tenant.id,
        name=name,
        role=role,
        secret_hash=sha256(secret.encode()).digest(),
        created_by=actor.id,
        expires_at=expires_at,
        revoked_at=None,
    )
    told = {"name": name, "role": role, "expiresAt": expires_at}
    with shared_side():
        lock_members(tenant, actor)
        db.session.add(key)
        db.session.flush()
        commit_entry(tenant, actor, "api_key.create", subject=str(key.id), after=told)
        return _shown(tenant.id, key.id), f"{KEY_PREFIX}{key.id.hex}_{secret}"


def _refuse_wrong_expiry(expires_at: datetime) -> None:
    now = datetime.now(UTC)
    if expires_at <= now:
        raise Invalid.at("expiresAt", "expiry_in_the_past", "expiresAt must be in the future.")
    if expires_at > now + LONGEST_LIFE:
        raise Invalid.at("expiresAt", "expiry_too_far", "expiresAt must be within a year.")


def list_keys(*, after: list[Any] | None, limit: int) -> list[sa.Row[Any]]:
    """The tenant's keys, newest first, including revoked ones; `after` is (created_at, id)."""
    query = _keys_of(current_tenant().id).order_by(ApiKey.created_at.desc(), ApiKey.id.desc()).limit(limit)
    if after is not None:
        position = sa.tuple_(sa.literal(datetime.fromisoformat(after[0])), sa.literal(UUID(after[1])))
        query = query.where(sa.tuple_(ApiKey.created_at, ApiKey.id) < position)
    with shared_side():
        return list(db.session.execute(query))


def get_key(key_id: UUID) -> sa.Row[Any]:
    """One of the tenant's keys, valid or not. Raises KeyNotFound."""
    query = _keys_of(current_tenant().id).where(ApiKey.id == key_id)
    with shared_side():
        found = db.session.execute(query).one_or_none()
    if found is None:
        raise KeyNotFound("There is no such API key.")
    return found


def _shown(tenant_id: UUID, key_id: UUID) -> sa.Row[Any]:
    return db.session.execute(_keys_of(tenant_id).where(ApiKey.id == key_id)).one()


def _keys_of(tenant_id: UUID) -> sa.Select[Any]:
    """The tenant's keys, with the names of maker and keeper as the tenant knows them."""
    keeper = sa.func.coalesce(ApiKey.kept_by, ApiKey.created_by)
    columns = [column for column in ApiKey.__table__.c if column.name not in {"secret_hash", "kept_by"}]
    return sa.select(
        *columns,
        keeper.label("keeper_id"),
        _name_of(ApiKey.created_by).label("creator_name"),
        _name_of(keeper).label("keeper_name"),
    ).where(ApiKey.tenant_id == tenant_id)


def _name_of(user_id: sa.ColumnExpressionArgument[UUID]) -> sa.ScalarSelect[str]:
    """The name by which the key's tenant knows a member or former member, as `all_members` shows it to the tenant's
    login. No tenant learns an operator's name, and nobody that of a user whom the tenant has forgotten.
    """
    user, member, former = aliased(User), aliased(Membership), aliased(FormerMember)
    of_member = sa.case((user.is_operator, OPERATOR_NAME), (member.user_id.is_not(None), user.name))
    known = sa.func.coalesce(member.name, of_member, former.name, FORGOTTEN_NAME)
    return (
        sa.select(known)
        .outerjoin_from(user, member, (member.user_id == user.id) & (member.tenant_id == ApiKey.tenant_id))
        .outerjoin(former, (former.user_id == user.id) & (former.tenant_id == ApiKey.tenant_id))
        .where(user.id == user_id)
        .correlate(ApiKey)
        .scalar_subquery()
    )


def revoke_key(key_id: UUID, *, actor: Actor) -> None:
    """Revoke a key from its next request on. A second call has no effect. Locks the key's row. Raises KeyNotFound."""
    tenant = current_tenant()
    query = sa.select(ApiKey).where(ApiKey.tenant_id == tenant.id, ApiKey.id == key_id).with_for_update()
    with shared_side():
        key = db.session.scalar(query)
        if key is None:
            raise KeyNotFound("There is no such API key.")
        if key.revoked_at is not None:
            return
        key.revoked_at = datetime.now(UTC)
        db.session.flush()
    commit_entry(tenant, actor, "api_key.revoke", subject=str(key_id), before={"name": key.name, "role": key.role})
