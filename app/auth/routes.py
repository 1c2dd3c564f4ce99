"""/api/auth: log in, refresh, log out, change the password. /.well-known/jwks.json: the keys of access tokens."""

from typing import Any

from flask import Blueprint as FlaskBlueprint
from flask import Response, jsonify

from app.api.blueprint import Blueprint
from app.api.refusals import refuses
from app.auth import cookies, service, sessions
from app.auth.access import Access, access, caller, names_tenant
from app.auth.credentials import current_session, presented_session
from app.auth.errors import BadCredentials, BadRefreshToken, CsrfRequired, SessionRequired, WrongPassword
from app.auth.schemas import LoginAnswerSchema, LoginSchema, PasswordSchema, RefreshSchema, TokensSchema
from app.auth.tenant_of_request import named_tenant
from app.auth.tokens import current_mint
from app.current import current_app, request
from app.errors import Invalid, TooManyRequests
from app.limits import log_in_slot
from app.limits.concurrency import TooManyConcurrentRequests
from app.limits.rate_limit import count_login
from app.signing_keys import PUBLISHED_SECONDS
from app.users.errors import MemberNotFound
from app.users.service import credentials_of, memberships_of
from tenant_schemas.errors import TenantAmbiguous, TenantNotFound

blueprint = Blueprint("auth", __name__, url_prefix="/api/auth", description="Log in, go on, log out.")
well_known = FlaskBlueprint("well_known", __name__, url_prefix="/.well-known")


@blueprint.post("/login")
@access(Access.ANYONE)
@names_tenant
@blueprint.arguments(LoginSchema)
@blueprint.response(200, LoginAnswerSchema)
@refuses(BadCredentials, CsrfRequired, TenantNotFound, TenantAmbiguous, TooManyRequests, TooManyConcurrentRequests)
def login(told: dict[str, Any]) -> dict[str, Any]:
    """Trade an address and a password for an access token and a refresh token.

    If the request names a tenant, the tokens are valid for that tenant only.
    """
    if told["cookie"]:
        cookies.refuse_other_origins(request)
    count_login(told["email"])
    with log_in_slot():
        known = service.authenticate(told["email"], told["password"])
    tenant = named_tenant(known.user_id)
    lifetime_seconds: int = current_app.config["REFRESH_SECONDS"]
    grant = sessions.start_session(
        known.user_id, known.password_hash, tenant.id if tenant else None, lifetime_seconds=lifetime_seconds
    )
    return {**_tokens(grant, in_cookies=told["cookie"]), "memberships": memberships_of(known.user_id)}


@blueprint.post("/refresh")
@access(Access.ANYONE)
@blueprint.arguments(RefreshSchema)
@blueprint.response(200, TokensSchema)
@refuses(BadRefreshToken, CsrfRequired, TooManyRequests)
def refresh(told: dict[str, str]) -> dict[str, Any]:
    """Trade a refresh token for new tokens of the same session and tenant.

    A refresh token works once. A second use ends the session, because two clients then hold the token. A browser sends
    `{}` to this path, with X-CSRF-Token.
    """
    token = told.get("refresh_token")
    if token:
        return _tokens(sessions.refresh_session(token), in_cookies=False)
    token = request.cookies.get(cookies.REFRESH_COOKIE)
    if not token:
        raise Invalid.at("refreshToken", "required", "This field is needed.")
    cookies.refuse_forgery(request, sessions.session_of(token))
    return _tokens(sessions.refresh_session(token), in_cookies=True)


@blueprint.post("/logout")
@access(Access.USER)
@blueprint.response(204)
@refuses(SessionRequired)
def logout() -> None:
    """End this session: its tokens are refused from the next request on. Clears the cookies."""
    sessions.end_session(current_session())
    cookies.forget_cookies()


@blueprint.post("/password")
@access(Access.USER)
@blueprint.arguments(PasswordSchema)
@blueprint.response(204)
@refuses(WrongPassword, SessionRequired, TooManyRequests, TooManyConcurrentRequests, MemberNotFound)
def change_password(told: dict[str, str]) -> None:
    """Change the caller's password. It ends all other sessions of the user; this session stays."""
    user_id = caller().user_id
    count_login(str(user_id))
    with log_in_slot():
        service.change_password(
            credentials_of(user_id), presented_session(), current=told["current_password"], new=told["new_password"]
        )


@well_known.get("/jwks.json")
def show_keys() -> Response:
    """The public keys that verify access tokens (RFC 7517)."""
    response = jsonify(current_mint().keys().published)
    response.headers["Cache-Control"] = f"public, max-age={PUBLISHED_SECONDS}"
    return response


def _tokens(grant: sessions.Grant, *, in_cookies: bool) -> dict[str, Any]:
    mint = current_mint()
    seconds = min(mint.lifetime_seconds, grant.seconds_left)
    access_token = mint.issue(grant.user_id, grant.tenant_id, grant.session_id, lifetime_seconds=seconds)
    told = {"expires_in": seconds, "refresh_expires_in": grant.seconds_left}
    if in_cookies:
        return {**told, "csrf_token": cookies.keep_in_cookies(grant, access_token, seconds)}
    return {"access_token": access_token, "refresh_token": grant.refresh_token, "token_type": "Bearer", **told}
