"""What becomes of an admin's API keys when the admin's right ends: revoked, or kept by the admin who decides.

A key of a former admin opens nothing in any case (`app/users/standing.py`). So the decision is demanded before the
right ends, or a service would stop without a word.
"""

from enum import StrEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.api_keys.errors import ApiKeysUndecided
from app.api_keys.models import ApiKey
from app.audit.service import commit_entry
from app.auth.actors import Actor
from app.auth.membership_lock import is_operator
from app.db import db
from tenant_schemas.tenant import Tenant


class KeyChoice(StrEnum):
    REVOKE = "revoke"
    KEEP = "keep"


def settle_keys(tenant: Tenant, user_id: UUID, choice: KeyChoice | None, *, keeper: UUID | None, actor: Actor) -> None:
    """Revoke the user's valid keys in the tenant, or let the keeper answer for them, and record each in the audit log.

    The keys of an operator do not depend on a membership: without a choice they stay as they are. Works on the shared
    side, locks the keys' rows and commits nothing but the entries. Raises ApiKeysUndecided, with the keys, if there are
    some and no choice.
    """
    keys = _valid_keys(tenant, user_id)
    if keys and choice is None:
        if is_operator(user_id):
            return
        raise ApiKeysUndecided(
            "API keys depend on this member's right. Choose apiKeys: `revoke`, or `keep`, and you answer for them.",
            {"apiKeys": [_named(key) for key in keys]},
        )
    for key in keys:
        if choice is KeyChoice.REVOKE:
            values: dict[str, Any] = {"revoked_at": sa.func.now()}
        else:
            values = {"kept_by": keeper}
        db.session.execute(sa.update(ApiKey).where(ApiKey.id == key.id).values(values))
    for key in keys:
        told = {"name": key.name, "role": key.role}
        after = told | {"keeperId": keeper} if choice is KeyChoice.KEEP else None
        before = told | {"keeperId": user_id}
        commit_entry(tenant, actor, f"api_key.{choice}", subject=str(key.id), before=before, after=after)


def _valid_keys(tenant: Tenant, user_id: UUID) -> list[sa.Row[Any]]:
    key = ApiKey
    query = (
        sa.select(key.id, key.name, key.role, key.last_used_at)
        .where(key.tenant_id == tenant.id, sa.func.coalesce(key.kept_by, key.created_by) == user_id)
        .where(key.revoked_at.is_(None), key.expires_at > sa.func.now())
        .order_by(key.id)
        .with_for_update()
    )
    return list(db.session.execute(query))


def _named(key: sa.Row[Any]) -> dict[str, Any]:
    used = key.last_used_at
    return {
        "id": str(key.id),
        "name": key.name,
        "role": key.role,
        "lastUsedAt": used.isoformat().replace("+00:00", "Z") if used else None,
    }
