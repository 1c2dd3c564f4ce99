"""How this application uses the engine: its roles and histories, its resolvers, and the gate every request passes.

Every route below /api/ says who may come in (`@access`); one that does not say so stops the application from starting.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, cast
from uuid import UUID

from flask import Flask, current_app, g, request
from werkzeug.routing import Rule

from app import limits
from app.api.requests import SAFE_METHODS, View, wants_header
from app.audit.models import Actor, ActorKind
from app.audit.service import note_in
from app.auth.credentials import ApiKey, presented_credential
from app.auth.errors import AdminRequired, BadToken, MemberRequired, OperatorRequired, UserRequired
from app.auth.tokens import Token
from app.config import ROOT, Settings
from app.db import ROLES
from app.errors import Invalid
from app.members.models import Role
from app.members.service import Standing, standing, standing_of_key
from tenant_schemas.context import SHARED
from tenant_schemas.errors import SchemaBehind, TenantAmbiguous, TenantNotFound, TenantRequired
from tenant_schemas.flask import FlaskRequestParts, PathTenant, bind_request
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.resolvers import Resolver, by_claim, by_header, by_path, by_subdomain, select
from tenant_schemas.tenant import Tenant

MIGRATIONS: Final = Migrations(ROOT / "setup.cfg", ROLES)

API_PREFIX: Final = "/api/"
# The first segments of all routes, now and planned: /api/<segment>/… is never a tenant.
RESERVED_SLUGS: Final = frozenset({"admin", "auth", "me", "orders", "products", "wallet"})

# The revisions this code can serve. Histories are numbered, so a later revision compares as greater; one that is newer
# than the code is served too, since migrations expand before they contract.
OLDEST_SHARED_REVISION: Final = "0003"
OLDEST_TENANT_REVISION: Final = "0008"


class Access(Enum):
    """Who may call a route, and on which side it then works."""

    ANYONE = "anyone"  # shared side
    USER = "user"  # anyone who logged in, shared side
    OPERATOR = "operator"  # of the installation, shared side
    # And of the tenant of the request:
    MEMBER = "member"  # whoever has wallets there
    READER = "reader"  # whoever may see all of it
    TELLER = "teller"  # whoever may move its members' money
    ADMIN = "admin"  # whoever manages it


# Which roles open which routes of a tenant.
OPENS: Final = {
    Access.MEMBER: frozenset({Role.MEMBER, Role.ADMIN}),
    Access.READER: frozenset({Role.ADMIN, Role.AUDITOR, Role.SERVICE, Role.OPERATOR}),
    Access.TELLER: frozenset({Role.ADMIN, Role.SERVICE, Role.OPERATOR}),
    Access.ADMIN: frozenset({Role.ADMIN, Role.OPERATOR}),
}
# The routes whose use and refusal the tenant's audit log tells of.
WATCHED: Final = frozenset({Access.READER, Access.TELLER, Access.ADMIN})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes this request, checked: a user or an API key. `role` is theirs in the bound tenant; None on the shared
    side, but for an operator.
    """

    kind: ActorKind
    id: UUID
    role: Role | None

    @property
    def user_id(self) -> UUID:
        """The user's id. No route that asks for it lets an API key in."""
        if self.kind is ActorKind.API_KEY:
            raise LookupError("This caller is an API key and no user.")
        return self.id


def access(who: Access, does: str | None = None, *, across_tenants: bool = False) -> Callable[[View], View]:
    """Mark a view with who may call it, and what it does in the audit log's words if it changes anything. To be the
    outermost mark, so that the API's description says it too.

    `across_tenants` lets an operator call it without naming a tenant; it then works on the shared side.
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
    """Put the gate in front of all routes. To be called when they are all registered."""
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
        raise RuntimeError(f"{rule} changes something, and @access does not say what the audit log is to call it.")


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
        raise UserRequired("An API key is for one tenant's routes; log in as a user for this one.")
    if who is Access.OPERATOR and credential.claims.get("tenant"):
        raise TenantAmbiguous("This is about all tenants, and the access token is for one: log in without naming any.")
    found = _known(standing(credential.user_id, credential.session_id, None, None))
    if who is Access.OPERATOR and not found.is_operator:
        raise OperatorRequired("This needs an operator of the installation.")
    is_operator = who is Access.OPERATOR
    _introduce(ActorKind.OPERATOR if is_operator else ActorKind.USER, found.id, Role.OPERATOR if is_operator else None)
    bind_request(SHARED)


def _enter(who: Access, credential: Token | ApiKey) -> None:
    tenant, found = _tenant_of(
        credential, archived_for_auditors=who is Access.READER and request.method in SAFE_METHODS
    )
    # An operator is one also where somebody made them a member: no admin can take their mark away.
    role = Role.OPERATOR if found.is_operator and who in WATCHED else found.role
    if role is None:
        raise TenantNotFound("There is no such tenant, or you do not belong to it.")
    kind = ActorKind.API_KEY if isinstance(credential, ApiKey) else ActorKind.USER
    g.tenant = tenant
    _introduce(ActorKind.OPERATOR if role is Role.OPERATOR else kind, found.id, role)
    limits.enter(tenant)
    if tenant.revision < OLDEST_TENANT_REVISION:
        raise SchemaBehind("This tenant is being migrated; try again shortly.")
    g.is_watched = who in WATCHED
    if role not in OPENS[who]:
        roles = ", ".join(sorted(OPENS[who]))
        refusal = MemberRequired if who is Access.MEMBER else AdminRequired
        raise refusal(f"Your role in this tenant is {role}. This needs one of: {roles}.")
    bind_request(tenant)
    if role is Role.OPERATOR and request.method in SAFE_METHODS:
        note_in(tenant, actor(), "look", subject=request.path)


def _introduce(kind: ActorKind, caller_id: UUID, role: Role | None) -> None:
    g.user_id = caller_id
    g.caller = Caller(kind, caller_id, role)


def caller() -> Caller:
    """Who makes the current request."""
    return cast(Caller, g.caller)


def actor() -> Actor:
    """Who makes the current request, in the words of the audit log."""
    return Actor(caller().kind, caller().id, request.remote_addr, g.request_id)


def named_tenant(user_id: UUID) -> Tenant | None:
    """The tenant that a login request names, if it names one; the user must belong to it. Raises TenantNotFound."""
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
