"""The gate in front of every route: it authenticates the caller, finds the tenant, checks the role and binds the
tenant.

Every route below /api/ has the mark `@access`; the application does not start with a route that has none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import wraps
from typing import Any, Final, TypeVar, cast
from uuid import UUID

import psycopg
from flask import Flask
from werkzeug.routing import Rule

from app import limits
from app.api.headers import wants_header
from app.api.problems import Refusal
from app.api.refusals import View, refuses
from app.api.requests import SAFE_METHODS
from app.auth.actors import Actor, ActorKind
from app.auth.credentials import ApiKey, presented_credential
from app.auth.errors import (
    AdminRequired,
    CsrfRequired,
    MemberRequired,
    OperatorRequired,
    ProviderUnavailable,
    SessionOver,
    TokenExpired,
    TokenInvalid,
    TokenMissing,
    UserRequired,
)
from app.auth.key_uses import note_key_use
from app.auth.remembered_standings import RememberedStandings, StandingKey
from app.auth.second_factor.demand import demands_second_factor, refuse_single_factor
from app.auth.second_factor.errors import SecondFactorDemanded
from app.auth.tenant_of_request import known_standing, selection_of, standing_of_known_key, tenant_of
from app.auth.tokens import Token
from app.config import Settings
from app.current import current_app, g, request
from app.errors import DatabaseUnavailable, Invalid, Malformed, ServiceError, TooManyRequests
from app.limits.concurrency import DeadlineExceeded, TooManyConcurrentRequests
from app.tenancy import OLDEST_TENANT_REVISION, RESERVED_SLUGS, resolvers
from app.users.errors import StandingUnproven
from app.users.models import Role
from app.users.standing import Standing, StandingProof, standing
from tenant_schemas.context import SHARED
from tenant_schemas.errors import (
    ConnectionsExhausted,
    SchemaBehind,
    SchemaMissing,
    TenancyError,
    TenantAmbiguous,
    TenantNotFound,
    TenantRequired,
)
from tenant_schemas.flask import PathTenant, bind_request
from tenant_schemas.tenant import Tenant

API_PREFIX: Final = "/api/"
Result = TypeVar("Result")


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


def access(
    who: Access, does: str | None = None, *, across_tenants: bool = False, proves_standing: bool = False
) -> Callable[[View], View]:
    """Mark a view with who may call it and, if it changes something, with the name of its action in the audit log. It
    must be the outermost decorator, so that OpenAPI describes it too.

    With `across_tenants` an operator may call the view without a tenant; the view then works on the shared side. With
    `proves_standing` the view calls `with_standing_proof`, and the gate lets in whom it remembers.
    """

    def mark(view: View) -> View:
        if proves_standing:
            view = _confirmed_after(view)
        view.__dict__.update(access=who, does=does, across_tenants=across_tenants, proves_standing=proves_standing)
        view = _declare_refusals(view, who, across_tenants=across_tenants)
        if who is Access.ANYONE:
            view.__dict__.setdefault("_apidoc", {})["manual_doc"] = {"security": []}
            return view
        return names_tenant(view) if who in OPENS else view

    return mark


# What the gate may refuse with, on every route, of each caller, and of each kind of route.
_BY_ANY: Final = (DeadlineExceeded, DatabaseUnavailable, ConnectionsExhausted)
_BY_CALLER: Final = (
    *(TokenMissing, TokenInvalid, TokenExpired, SessionOver),
    *(ProviderUnavailable, TooManyRequests, TooManyConcurrentRequests),
)
_BY_TENANT: Final = (
    *(TenantRequired, TenantAmbiguous, TenantNotFound, SchemaBehind, SchemaMissing),
    limits.TenantMisconfigured,
)
_BY_SHARED_SIDE: Final = {
    Access.ANYONE: (),
    Access.USER: (UserRequired,),
    Access.OPERATOR: (UserRequired, OperatorRequired, TenantAmbiguous),
}


def _declare_refusals(view: View, who: Access, *, across_tenants: bool) -> View:
    gate: list[Refusal] = [Malformed, Invalid, *_BY_ANY]
    if who is not Access.ANYONE:
        gate += _BY_CALLER
        view = refuses(CsrfRequired, of_changes_only=True)(view)
    if who in WATCHED or who is Access.OPERATOR:
        gate.append(SecondFactorDemanded)
    if who in OPENS:
        gate += (*_BY_TENANT, MemberRequired if who is Access.MEMBER else AdminRequired)
    if who not in OPENS or across_tenants:
        gate += _BY_SHARED_SIDE[Access.OPERATOR if across_tenants else who]
    return refuses(*gate)(view)


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
    app.extensions["remembered_standings"] = RememberedStandings()
    app.extensions["after_slow_body"] = _look_again
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
    if who is Access.ANYONE:
        _refuse_unknown_query(view)
        bind_request(SHARED)
        return
    credential = presented_credential(request)
    if who in OPENS:
        try:
            _enter(who, credential, may_remember=getattr(view, "proves_standing", False))
        except TenantRequired:
            if not getattr(view, "across_tenants", False):
                raise
            _enter_shared_side(Access.OPERATOR, credential)
    else:
        _enter_shared_side(who, credential)


def refuse_unknown_query() -> None:
    """Refuse a parameter that the route does not have. `operator_reads.py` calls it once the caller is known and an
    operator's read is recorded, so that no parameter keeps a request out of the audit log.
    """
    view = current_app.view_functions.get(request.endpoint or "")
    if hasattr(view, "access"):
        _refuse_unknown_query(view)


def _refuse_unknown_query(view: Callable[..., Any] | None) -> None:
    if request.args and not getattr(view, "reads_query", False):
        if g.get("unconfirmed"):
            _confirm()
        raise Invalid.at(next(iter(request.args)), "unknown_field", "There is no such parameter.", "query")


def _look_again() -> None:
    """Ask for the standing of a caller who was let in some time ago, and raise what `admit` raises. Nothing is counted
    again.
    """
    if "caller" not in g or g.get("unconfirmed"):  # Anyone; or the view's own statement is to prove the standing.
        return
    who = current_app.view_functions[request.endpoint or ""].__dict__["access"]
    if "tenant" in g:
        _let_in(who, g.credential, *tenant_of(g.credential), is_counted=True)
    else:
        _enter_shared_side(Access.OPERATOR if who in OPENS else who, g.credential, is_counted=True)


def _enter_shared_side(who: Access, credential: Token | ApiKey, *, is_counted: bool = False) -> None:
    if isinstance(credential, ApiKey):
        standing_of_known_key(credential)
        raise UserRequired("An API key can't call this route; log in as a user.")
    if who is Access.OPERATOR and credential.claims.get("tenant"):
        raise TenantAmbiguous(
            "This route covers all tenants, and the access token is for one: log in without a tenant."
        )
    found = known_standing(standing(credential.user_id, credential.session_id, None, None))
    if who is Access.OPERATOR and not found.is_operator:
        raise OperatorRequired("This route needs an operator of the installation.")
    is_operator = who is Access.OPERATOR
    g.standing = found
    if is_operator and demands_second_factor(None, Role.OPERATOR):
        refuse_single_factor(credential, found)
    _introduce(ActorKind.OPERATOR if is_operator else ActorKind.USER, found.id, Role.OPERATOR if is_operator else None)
    if not is_counted:
        limits.enter_shared_side(found.id)
    bind_request(SHARED)


def _enter(who: Access, credential: Token | ApiKey, *, may_remember: bool = False) -> None:
    key = _standing_key(credential) if who is Access.MEMBER else None
    if may_remember and key and _enter_as_remembered(who, credential, key):
        return
    tenant, found = tenant_of(credential, archived_for_auditors=who is Access.READER and request.method in SAFE_METHODS)
    _let_in(who, credential, tenant, found)
    if key:
        _remembered_standings().remember(key, found)


def role_in(who: Access, found: Standing) -> Role | None:
    """The role in which a caller with this standing calls a route of this kind. An operator stays one in a tenant where
    an admin made them a member.
    """
    return Role.OPERATOR if found.is_operator and who in WATCHED else found.role


def _let_in(
    who: Access, credential: Token | ApiKey, tenant: Tenant, found: Standing, *, is_counted: bool = False
) -> None:
    role = role_in(who, found)
    if role is None:
        raise TenantNotFound("There is no such tenant, or you do not belong to it.")
    kind = ActorKind.API_KEY if isinstance(credential, ApiKey) else ActorKind.USER
    g.tenant = tenant
    _introduce(ActorKind.OPERATOR if role is Role.OPERATOR else kind, found.id, role)
    g.standing = found
    if not is_counted:
        limits.enter(tenant, found.id)
    if tenant.revision < OLDEST_TENANT_REVISION:
        raise SchemaBehind("This tenant is being migrated; try again shortly.")
    g.is_watched = who in WATCHED
    if role not in OPENS[who]:
        roles = ", ".join(sorted(OPENS[who]))
        refusal = MemberRequired if who is Access.MEMBER else AdminRequired
        raise refusal(f"Your role in this tenant is {role}. This needs one of: {roles}.")
    if isinstance(credential, ApiKey):
        note_key_use(credential.key_id)
    elif who in WATCHED and demands_second_factor(tenant, role):
        refuse_single_factor(credential, found)
    bind_request(tenant)


def _enter_as_remembered(who: Access, credential: Token | ApiKey, key: StandingKey) -> bool:
    """Let in a caller who was let in before, without a question: the view's own statement is to prove the standing."""
    known = _remembered_standings().get(key)
    if known is None or known.tenant is None:
        return False
    try:
        _let_in(who, credential, known.tenant, known)
    except ServiceError as refusal:
        # The limits may have been changed since: the rate is counted again by those of today.
        _remembered_standings().forget(key)
        if type(refusal) is TooManyRequests:
            return False
        raise
    g.unconfirmed = key
    return True


def with_standing_proof(proven: Callable[[StandingProof], Result], *, without: Callable[[], Result]) -> Result:
    """Call `proven` with the standing that its statement is to prove; `without` for a caller without a session here.

    If the statement finds no such standing, or fails because the tenant was moved, the standing is asked for as on
    every other route. That raises the refusal, or `proven` is called once more.
    """
    proof = _standing_proof()
    if proof is None:
        return without()
    try:
        result = proven(proof)
    except (StandingUnproven, psycopg.Error, TenancyError) as error:
        _confirm()
        if _standing_proof() == proof and not isinstance(error, StandingUnproven):
            raise
        result = proven(_standing_proof() or proof)
    except ServiceError as error:
        if hasattr(error, "sqlstate"):  # The statement proved the standing, and then refused.
            g.unconfirmed = None
        raise
    g.unconfirmed = None
    return result


def _standing_proof() -> StandingProof | None:
    version, credential = g.standing.tenant_version, g.credential
    if not isinstance(credential, Token) or credential.session_id is None or version is None:
        return None
    return StandingProof(credential.user_id, credential.session_id, version)


def _confirmed_after(view: View) -> View:
    """The view; whatever it answers or raises without a proof, the caller's standing is asked for first."""

    @wraps(view)
    def confirmed(*arguments: Any, **named: Any) -> Any:
        try:
            return view(*arguments, **named)
        finally:
            if g.get("unconfirmed"):
                _confirm()

    return cast(View, confirmed)


def _confirm() -> None:
    """Ask for the standing of a caller who was let in as remembered, and bind the tenant as it is now. Raises what
    `admit` raises.
    """
    _remembered_standings().forget(g.pop("unconfirmed", None))
    _look_again()


def _remembered_standings() -> RememberedStandings:
    return cast(RememberedStandings, current_app.extensions["remembered_standings"])


def _standing_key(credential: Token | ApiKey) -> StandingKey | None:
    """None for a caller without a session here. Raises TenantRequired or TenantAmbiguous."""
    if not isinstance(credential, Token) or credential.session_id is None:
        return None
    selection = selection_of(credential.claims)
    return StandingKey(credential.user_id, credential.session_id, selection.slug, selection.tenant_id)


def _introduce(kind: ActorKind, caller_id: UUID, role: Role | None) -> None:
    g.user_id = caller_id
    g.caller = Caller(kind, caller_id, role)


def caller() -> Caller:
    """The caller of the current request."""
    return cast(Caller, g.caller)


def actor() -> Actor:
    """The caller of the current request, as the audit log records it."""
    return Actor(caller().kind, caller().id, request.remote_addr, g.request_id)
