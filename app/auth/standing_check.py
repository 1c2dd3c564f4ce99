"""Whether a caller who was let in may still do so, for answers that last longer than a request."""

from collections.abc import Callable
from time import time
from typing import Final

from app.auth.access import OPENS, Access, role_in
from app.auth.credentials import ApiKey
from app.auth.tokens import Token
from app.current import g
from app.users.standing import Standing, standing, standing_of_key
from tenant_schemas.context import current_tenant
from tenant_schemas.tenant import Tenant

FOR_EVER: Final = float("inf")


def standing_check(who: Access) -> Callable[[], bool]:
    """A function that asks whether the current caller may still call a route of this kind in the bound tenant. False
    also if the tenant's registry row has changed. The function works after the request has ended, in the application's
    context.
    """
    credential, tenant = g.credential, current_tenant()
    return lambda: _opens(who, tenant, _asked(credential, tenant))


def seconds_of_token() -> float:
    """The seconds until the current request's access token expires. An API key's own end is part of its standing."""
    credential = g.credential
    if isinstance(credential, ApiKey):
        return FOR_EVER
    return float(credential.claims["exp"]) - time()


def _asked(credential: Token | ApiKey, tenant: Tenant) -> Standing | None:
    if isinstance(credential, ApiKey):
        return standing_of_key(credential.key_id, credential.secret_hash)
    return standing(credential.user_id, credential.session_id, None, tenant.id)


def _opens(who: Access, tenant: Tenant, found: Standing | None) -> bool:
    return found is not None and found.tenant == tenant and role_in(who, found) in OPENS[who]
