"""The gate in front of every route: it authenticates the caller, finds the tenant, checks the role and binds the
tenant.

Every route below /api/ has the mark `@access`; the application does not start with a route that has none.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, cast
from uuid import UUID

from flask import Flask, current_app, g, request
from werkzeug.routing import Rule

from app import limits
from app.api.headers import View, wants_header
from app.api.requests import SAFE_METHODS
from app.auth.actors import Actor, ActorKind
from app.auth.credentials import ApiKey, presented_credential
from app.auth.errors import AdminRequired, BadToken, MemberRequired, OperatorRequired, UserRequired
from app.auth.tokens import Token
from app.config import Settings
from app.errors import Invalid
from app.tenancy import OLDEST_TENANT_REVISION, RESERVED_SLUGS, resolvers
from app.users.models import Role
from app.users.standing import Standing, standing, standing_of_key
from tenant_schemas.context import SHARED
from tenant_schemas.errors import SchemaBehind, TenantAmbiguous, TenantNotFound, TenantRequired
from tenant_schemas.flask import FlaskRequestParts, PathTenant, bind_request
from tenant_schemas.resolvers import Resolver, select
from tenant_schemas.tenant import Tenant

API_PREFIX: Final = "/api/"


class Access(Enum):
    """Who may call a route, and on which side the route works."""

    ANYONE = "anyone"  # shared side
    USER = "user"  # any logged-in user, shared side
    OPERATOR = "operator"  # an operator of the installation, shared side
    # In the tenant of the request:
    MEMBER = "member"  # has wallets
    READER = "reader"  # reads all of the tenant
    TELLER = "teller"  # moves the members' money
    ADMIN = "admin"  # manages the tenant


# The roles that may call each kind of route of a tenant.
OPENS: Final = {
    Access.MEMBER: frozenset({Role.MEMBER, Role.ADMIN}),
    Access.READER: frozenset({Role.ADMIN, Role.AUDITOR, Role.SERVICE, Role.OPERATOR}),
    Access.TELLER: frozenset({Role.ADMIN, Role.SERVICE, Role.OPERATOR}),
    Access.ADMIN: frozenset({Role.ADMIN, Role.OPERATOR}),
}


# Calls and refusals of these routes are recorded in the tenant's audit log.
WATCHED: Final = frozenset({Access.READER, Access.TELLER, Access.ADMIN})


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated caller of the current request: a user or an API key. `role` is the caller's role in the bound
    tenant; on the shared side it is None, or OPERATOR for an operator.
    """

    kind: ActorKind
    id: UUID
    role: Role | None

    @property
    def user_id(self) -> UUID:
        """The user's id. Raises LookupError for an API key; the gate lets none into a route that asks for it."""
        if self.kind is ActorKind.API_KEY:
            raise LookupError("The caller is an API key, not a user.")
        return self.id


def access(who: Access, does: str | None = None, *, across_tenants: bool = False) -> Callable[[View], View]:
    """Mark a view with who may call it and, if it changes something, with the name of its action in the audit log. It
    must be the outermost decorator, so that OpenAPI describes it too.

    With `across_tenants` an operator may call the view without a tenant; the view then works on the shared side.
    """

    def mark(view: View) -> View:
        view.__dict__.update(access=who, does=does, across_tenants=across_tenants)
        if who is Access.ANYONE:
            view.__dict__.setdefault("_apidoc", {})["manual_doc"] = {"security": []}
            return view
        return names_tenant(view) if who in OPENS else view

    return mark


names_tenant = wants_header(
    "X-Tenant", "The tenant's slug, unless the token, the path or the host names it.", required=False, maxLength=32
)


def init_app(app: Flask, settings: Settings) -> None:
    """Put the gate in front of all routes. Call it after all routes are registered. Raises RuntimeError for a route
    without marks.
    """
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith(API_PREFIX):
            _check_marks(rule, app.view_functions[rule.endpoint])
    app.extensions["tenant_resolvers"] = resolvers(settings.base_domain)
    app.before_request(admit)
    app.wsgi_app = PathTenant(app.wsgi_app, API_PREFIX, RESERVED_SLUGS)  # type: ignore[method-assign]


def _check_marks(rule: Rule, view: Callable[..., Any]) -> None:
    who: Access | None = getattr(view, "access", None)
    if who is None:
        raise RuntimeError(f"Routes without @access: {rule}")
    changes = bool((rule.methods or set()) - SAFE_METHODS)
    if changes and who in {Access.TELLER, Access.ADMIN, Access.OPERATOR} and not getattr(view, "does", None):
        raise RuntimeError(f"{rule} changes something, and @access does not name its action for the audit log.")


def admit() -> None:
    """Authenticate the caller, find the tenant, check membership and role, and bind the tenant. Runs before
    every view.
    """
    view = current_app.view_functions.get(request.endpoint or "")
    who: Access | None = getattr(view, "access", None)
    if who is None:
        return
    if request.args and not getattr(view, "reads_query", False):
        raise Invalid.at(next(iter(request.args)), "unknown_field", "There is no such parameter.")
    if who is Access.ANYONE:
        bind_request(SHARED)
        return
    credential = presented_credential(request)
    if who in OPENS:
        try:
            _enter(who, credential)
        except TenantRequired:
            if not getattr(view, "across_tenants", False):
                raise
            _enter_shared_side(Access.OPERATOR, credential)
    else:
        _enter_shared_side(who, credential)


def _enter_shared_side(who: Access, credential: Token | ApiKey) -> None:
    if isinstance(credential, ApiKey):
        raise UserRequired("An API key can't call this route; log in as a user.")
    if who is Access.OPERATOR and credential.claims.get("tenant"):
        raise TenantAmbiguous(
            "This route covers all tenants, and the access token is for one: log in without a tenant."
        )
    found = _known(standing(credential.user_id, credential.session_id, None, None))
    if who is Access.OPERATOR and not found.is_operator:
        raise OperatorRequired("This route needs an operator of the installation.")
    is_operator = who is Access.OPERATOR
    _introduce(ActorKind.OPERATOR if is_operator else ActorKind.USER, found.id, Role.OPERATOR if is_operator else None)
    limits.enter_shared_side(found.id)
    bind_request(SHARED)


def _enter(who: Access, credential: Token | ApiKey) -> None:
    tenant, found = _tenant_of(
        credential, archived_for_auditors=who is Access.READER and request.method in SAFE_METHODS
    )
    # An operator stays one in a tenant where an admin made them a member.
    role = Role.OPERATOR if found.is_operator and who in WATCHED else found.role
    if role is None:
        raise TenantNotFound("There is no such tenant, or you do not belong to it.")
    kind = ActorKind.API_KEY if isinstance(credential, ApiKey) else ActorKind.USER
    g.tenant = tenant
    _introduce(ActorKind.OPERATOR if role is Role.OPERATOR else kind, found.id, role)
    limits.enter(tenant, found.id)
    if tenant.revision < OLDEST_TENANT_REVISION:
        raise SchemaBehind("This tenant is being migrated; try again shortly.")
    g.is_watched = who in WATCHED
    if role not in OPENS[who]:
        roles = ", ".join(sorted(OPENS[who]))
        refusal = MemberRequired if who is Access.MEMBER else AdminRequired
        raise refusal(f"Your role in this tenant is {role}. This needs one of: {roles}.")
    bind_request(tenant)


def _introduce(kind: ActorKind, caller_id: UUID, role: Role | None) -> None:
    g.user_id = caller_id
    g.caller = Caller(kind, caller_id, role)


def caller() -> Caller:
    """The caller of the current request."""
    return cast(Caller, g.caller)


def actor() -> Actor:
    """The caller of the current request, as the audit log records it."""
    return Actor(caller().kind, caller().id, request.remote_addr, g.request_id)


def named_tenant(user_id: UUID) -> Tenant | None:
    """The tenant that a login request names; None if it names none. Raises TenantNotFound, also if the user is not a
    member.
    """
    try:
        tenant, found = _tenant_of(Token(user_id, None, {}), archived_for_auditors=True)
    except TenantRequired:
        return None
    if found.role is None and not found.is_operator:
        raise TenantNotFound("There is no such tenant, or you do not belong to it.")
    return tenant


def _tenant_of(credential: Token | ApiKey, *, archived_for_auditors: bool = False) -> tuple[Tenant, Standing]:
    """The request's tenant and the caller's standing in it. Raises TenantRequired, TenantAmbiguous, or TenantNotFound
    for a tenant that is unknown or not active.
    """
    known: Iterable[Resolver] = current_app.extensions["tenant_resolvers"]
    if isinstance(credential, ApiKey):
        found = _known(standing_of_key(credential.key_id, credential.secret_hash))
        claims: Mapping[str, Any] = {"tenant": str(found.tenant.id)} if found.tenant else {}
        selection = select(FlaskRequestParts(request, claims), known)
    else:
        selection = select(FlaskRequestParts(request, credential.claims), known)
        found = _known(standing(credential.user_id, credential.session_id, selection.slug, selection.tenant_id))
    allow_archived = archived_for_auditors and found.role is Role.AUDITOR
    return selection.confirm(found.tenant, allow_archived=allow_archived), found


def _known(found: Standing | None) -> Standing:
    if found is None:
        raise BadToken("The access token's user, session or key is not active; log in again.")
    return found
