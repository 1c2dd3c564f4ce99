"""Who must have a second factor: a tenant demands it of its staff, and the installation of its operators."""

from app.auth.second_factor.errors import SecondFactorDemanded
from app.auth.tokens import Token
from app.current import current_app, g
from app.users.models import Role
from app.users.standing import Standing
from tenant_schemas.tenant import Tenant


def demands_second_factor(tenant: Tenant | None, role: Role) -> bool:
    """Whether staff with this role must have one, in the tenant or on the shared side."""
    if tenant is not None and tenant.settings.get("require_second_factor") is True:
        return True
    return role is Role.OPERATOR and bool(current_app.config["OPERATOR_SECOND_FACTOR"])


def may_enter(tenant: Tenant) -> bool:
    """Whether the operator of the current request has the second factor that the tenant demands, if it demands one."""
    return not demands_second_factor(tenant, Role.OPERATOR) or _has_second_factor(g.credential, g.standing)


def refuse_entry(tenant: Tenant) -> None:
    """Raises SecondFactorDemanded if the operator of the current request lacks the second factor that the tenant
    demands: else they could read the tenant, or switch its demand off.
    """
    if not may_enter(tenant):
        refuse_single_factor(g.credential, g.standing)


def refuse_single_factor(credential: Token, found: Standing) -> None:
    """Raises SecondFactorDemanded for a session in which the user proved no second factor."""
    if not _has_second_factor(credential, found):
        raise SecondFactorDemanded(
            "This needs a session with a second factor. Set one up at POST /api/me/second-factor, or log in with it."
        )


def _has_second_factor(credential: Token, found: Standing) -> bool:
    """An OpenID provider says itself whether it asked for a second factor."""
    if credential.session_id is None:
        return "mfa" in credential.claims.get("amr", ())
    return found.has_second_factor
