"""How this application uses the engine: its roles and histories, its resolvers, and the gate every request passes.

Every route below /api/ says who may come in (`@access`); one that does not say so stops the application from starting.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, cast
from uuid import UUID

from flask import Flask, current_app, g, request

from app.auth.errors import AdminRequired, BadToken, TokenRequired
from app.auth.tokens import Token, TokenMint
from app.config import ROOT, Settings
from app.errors import Invalid
from app.http import View, wants_header
from app.members.models import Role
from app.members.service import standing
from tenant_schemas.context import SHARED
from tenant_schemas.errors import SchemaBehind, TenantNotFound, TenantRequired
from tenant_schemas.flask import FlaskRequestParts, PathTenant, bind_request
from tenant_schemas.migrations import Migrations
from tenant_schemas.resolvers import Resolver, by_claim, by_header, by_path, by_subdomain, select
from tenant_schemas.roles import ServiceRoles
from tenant_schemas.tenant import Tenant

ROLES: Final = ServiceRoles.named("wallet")
MIGRATIONS: Final = Migrations(ROOT / "setup.cfg", ROLES)

API_PREFIX: Final = "/api/"
# The first segments of all routes, now and planned: /api/<segment>/… is never a tenant.
RESERVED_SLUGS: Final = frozenset({"admin", "auth", "me", "orders", "products", "wallet"})

# The revisions this code can serve. Histories are numbered, so a later revision compares as greater; one that is newer
# than the code is served too, since migrations expand before they contract.
OLDEST_SHARED_REVISION: Final = "0002"
OLDEST_TENANT_REVISION: Final = "0007"


class Access(Enum):
    """Who may call a route, and on which side it then works."""

    ANYONE = "anyone"  # shared side
    USER = "user"  # anyone with a token, shared side
    MEMBER = "member"  # of the tenant of the request
    ADMIN = "admin"  # of the tenant of the request


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes this request, checked. `role` is theirs in the bound tenant; None on the shared side."""

    user_id: UUID
    role: Role | None


def access(who: Access) -> Callable[[View], View]:
    """Mark a view with who may call it. To be the outermost mark, so that the API's description says it too."""

    def mark(view: View) -> View:
        view.__dict__["access"] = who
        if who is Access.ANYONE:
            view.__dict__.setdefault("_apidoc", {})["manual_doc"] = {"security": []}
            return view
        return view if who is Access.USER else names_tenant(view)

    return mark


names_tenant = wants_header(
    "X-Tenant", "The tenant's slug, unless the token, the path or the host names it.", required=False, maxLength=32
)


def init_app(app: Flask, settings: Settings) -> None:
    """Put the gate in front of all routes. To be called when they are all registered."""
    unmarked = [
        str(rule)
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith(API_PREFIX) and not hasattr(app.view_functions[rule.endpoint], "access")
    ]
    if unmarked:
        raise RuntimeError(f"Routes without @access: {', '.join(unmarked)}")
    app.extensions["tenant_resolvers"] = resolvers(settings.base_domain)
    app.before_request(admit)
    app.wsgi_app = PathTenant(app.wsgi_app, API_PREFIX, RESERVED_SLUGS)  # type: ignore[method-assign]


def resolvers(base_domain: str) -> tuple[Resolver, ...]:
    """The ways a request may name its tenant here."""
    known: tuple[Resolver, ...] = (by_claim, by_header, by_path)
    return (*known, by_subdomain(base_domain)) if base_domain else known


def admit() -> None:
    """Authenticate, find the tenant, check membership and role, and bind. Runs before every view."""
    view = current_app.view_functions.get(request.endpoint or "")
    who: Access | None = getattr(view, "access", None)
    if who is None:
        return
    if request.args and not getattr(view, "reads_query", False):
        raise Invalid.at(next(iter(request.args)), "unknown_field", "There is no such parameter.")
    if who is Access.ANYONE:
        bind_request(SHARED)
        return
    token = _token()
    if who is Access.USER:
        found = standing(token.user_id, None, None)
        if found is None:
            raise BadToken("The user of this access token is not active.")
        g.caller = Caller(found.user_id, None)
        bind_request(SHARED)
        return
    tenant, role = _tenant_of(token)
    g.tenant = tenant
    g.caller = Caller(token.user_id, role)
    if who is Access.ADMIN and role is not Role.ADMIN:
        raise AdminRequired("This needs the role admin in this tenant.")
    if tenant.revision < OLDEST_TENANT_REVISION:
        raise SchemaBehind("This tenant is being migrated; try again shortly.")
    bind_request(tenant)


def caller() -> Caller:
    """Who makes the current request."""
    return cast(Caller, g.caller)


def named_tenant(user_id: UUID) -> Tenant | None:
    """The tenant that a login request names, if it names one; the user must belong to it. Raises TenantNotFound."""
    try:
        return _tenant_of(Token(user_id, {}))[0]
    except TenantRequired:
        return None


def _tenant_of(token: Token) -> tuple[Tenant, Role]:
    """The request's tenant and the caller's role in it. Raises TenantRequired, TenantAmbiguous, or TenantNotFound for
    a tenant that is unknown, not active or foreign: the three can't be told apart.
    """
    known: Iterable[Resolver] = current_app.extensions["tenant_resolvers"]
    selection = select(FlaskRequestParts(request, token.claims), known)
    found = standing(token.user_id, selection.slug, selection.tenant_id)
    if found is None:
        raise BadToken("The user of this access token is not active.")
    tenant = selection.confirm(found.tenant)
    if found.role is None:
        raise TenantNotFound("There is no such tenant, or you do not belong to it.")
    return tenant, found.role


def _token() -> Token:
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not text:
        raise TokenRequired("Log in at POST /api/auth/login and send Authorization: Bearer <accessToken>.")
    mint: TokenMint = current_app.extensions["token_mint"]
    token = mint.check(text.strip())
    g.user_id = token.user_id
    return token
