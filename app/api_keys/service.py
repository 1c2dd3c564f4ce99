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

from app.api_keys.errors import KeyNotFound
from app.api_keys.models import ApiKey
from app.audit.service import commit_entry
from app.auth.actors import Actor
from app.auth.credentials import KEY_PREFIX
from app.db import db
from app.errors import Invalid
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import shared_side

SECRET_BYTES: Final = 32
LONGEST_LIFE: Final = timedelta(days=366)


def create_key(name: str, role: str, expires_at: datetime, *, actor: Actor) -> tuple[ApiKey, str]:
    """A new key, and its text, which only this answer contains. Raises Invalid for an expiry in the past or too far
    ahead.
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
    with shared_side():
        db.session.add(key)
        db.session.flush()
    told = {"name": name, "role": role, "expiresAt": expires_at}
    commit_entry(tenant, actor, "api_key.create", subject=str(key.id), after=told)
    return key, f"{KEY_PREFIX}{key.id.hex}_{secret}"


def _refuse_wrong_expiry(expires_at: datetime) -> None:
    now = datetime.now(UTC)
    if expires_at <= now:
        raise Invalid.at("expiresAt", "expiry_in_the_past", "expiresAt must be in the future.")
    if expires_at > now + LONGEST_LIFE:
        raise Invalid.at("expiresAt", "expiry_too_far", "expiresAt must be within a year.")


def list_keys(*, after: list[Any] | None, limit: int) -> list[ApiKey]:
    """The tenant's keys, newest first, including revoked ones; `after` is (created_at, id)."""
    query = (
        sa.select(ApiKey)
        .where(ApiKey.tenant_id == current_tenant().id)
        .order_by(ApiKey.created_at.desc(), ApiKey.id.desc())
        .limit(limit)
    )
    if after is not None:
        position = sa.tuple_(sa.literal(datetime.fromisoformat(after[0])), sa.literal(UUID(after[1])))
        query = query.where(sa.tuple_(ApiKey.created_at, ApiKey.id) < position)
    with shared_side():
        return list(db.session.scalars(query))


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
