"""The tenant that a request names, and the caller's standing in it."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from app.auth.credentials import NO_KEY, ApiKey
from app.auth.errors import SessionOver, TokenInvalid
from app.auth.tokens import Token
from app.current import current_app, request
from app.users.models import Role
from app.users.standing import Standing, standing, standing_of_key
from tenant_schemas.errors import TenantNotFound, TenantRequired
from tenant_schemas.flask import FlaskRequestParts
from tenant_schemas.resolvers import Resolver, Selection, select
from tenant_schemas.tenant import Tenant


def named_tenant(user_id: UUID) -> Tenant | None:
    """The tenant that a login request names; None if it names none. Raises TenantNotFound, also if the user is not a
    member.
    """
    try:
        tenant, found = tenant_of(Token(user_id, None, {}), archived_for_auditors=True)
    except TenantRequired:
        return None
    if found.role is None and not found.is_operator:
        raise TenantNotFound("There is no such tenant, or you do not belong to it.")
    return tenant


def tenant_of(credential: Token | ApiKey, *, archived_for_auditors: bool = False) -> tuple[Tenant, Standing]:
    """The request's tenant and the caller's standing in it. Raises TenantRequired, TenantAmbiguous, TenantNotFound for
    a tenant that is unknown or not active, SessionOver, or TokenInvalid for an API key.
    """
    if isinstance(credential, ApiKey):
        found = standing_of_known_key(credential)
        claims: Mapping[str, Any] = {"tenant": str(found.tenant.id)} if found.tenant else {}
        selection = selection_of(claims)
    else:
        selection = selection_of(credential.claims)
        found = known_standing(standing(credential.user_id, credential.session_id, selection.slug, selection.tenant_id))
    allow_archived = archived_for_auditors and found.role is Role.AUDITOR
    return selection.confirm(found.tenant, allow_archived=allow_archived), found


def selection_of(claims: Mapping[str, Any]) -> Selection:
    known: Iterable[Resolver] = current_app.extensions["tenant_resolvers"]
    return select(FlaskRequestParts(request, claims), known)


def known_standing(found: Standing | None) -> Standing:
    """Raises SessionOver if there is none."""
    if found is None:
        raise SessionOver("The session of this access token is over, or its user is not active; log in again.")
    return found


def standing_of_known_key(key: ApiKey) -> Standing:
    """Raises TokenInvalid for a key that is unknown, revoked or expired."""
    found = standing_of_key(key.key_id, key.secret_hash)
    if found is None:
        raise TokenInvalid(NO_KEY)
    return found
