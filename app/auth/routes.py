"""/api/auth: log in, refresh, log out, change the password. /.well-known/jwks.json: the keys of access tokens."""

from typing import Any

from flask import Blueprint as FlaskBlueprint
from flask import Response, jsonify

from app.api.blueprint import Blueprint
from app.api.refusals import refuses
from app.auth import cookies, devices, refresh_tokens, service, sessions
from app.auth.access import Access, access, caller, names_tenant
from app.auth.credentials import presented_session
from app.auth.errors import (
    BadCredentials,
    CsrfRequired,
    NoPassword,
    SessionOver,
    SessionRequired,
    TokenInvalid,
    TokenMissing,
    WrongPassword,
)
from app.auth.logout import log_out
from app.auth.schemas import (
    DeviceSchema,
    LoginAnswerSchema,
    LoginSchema,
    LogoutSchema,
    PasswordSchema,
    RefreshSchema,
    TokensSchema,
)
from app.auth.second_factor.errors import SecondFactorRequired, SecondFactorWrong
from app.auth.tenant_of_request import named_tenant
from app.auth.tokens import current_mint
from app.current import current_app, request
from app.errors import TooManyRequests
from app.limits.attempts import count_refresh, log_in_attempt, password_attempt
from app.limits.concurrency import TooManyConcurrentRequests
from app.signing_keys import PUBLISHED_SECONDS
from app.users.errors import MemberNotFound
from app.users.service import Credentials, credentials_of, memberships_of
from tenant_schemas.errors import TenantAmbiguous, TenantNotFound
from tenant_schemas.tenant import Tenant

blueprint = Blueprint("auth", __name__, url_prefix="/api/auth", description="Log in, go on, log out.")
well_known = FlaskBlueprint("well_known", __name__, url_prefix="/.well-known")


@blueprint.post("/login")
@access(Access.ANYONE)
@names_tenant
@blueprint.arguments(LoginSchema)
@blueprint.response(200, LoginAnswerSchema)
@refuses(
    BadCredentials,
    SecondFactorRequired,
    SecondFactorWrong,
    SessionOver,
    CsrfRequired,
    TenantNotFound,
    TenantAmbiguous,
    TooManyRequests,
    TooManyConcurrentRequests,
)
def login(told: dict[str, Any]) -> dict[str, Any]:
    """Trade an address and a password for an access token and a refresh token.

    An account with a second factor needs its `code` too: the answer to a right password without one is 401
    `second_factor_required`. If the request names a tenant, the tokens are valid for that tenant only.
    """
    if told["cookie"]:
        cookies.refuse_other_origins(request)
    device = devices.known_device(told["email"], devices.presented_tokens(request, told.get("device_token")))
    with log_in_attempt(told["email"], device):
        known = service.authenticate(told["email"], told["password"])
    tenant = _tenant_after_second_factor(known, told.get("code"))
    lifetime_seconds: int = current_app.config["REFRESH_SECONDS"]
    grant = sessions.start_session(
        known.user_id,
        known.password_hash,
        tenant.id if tenant else None,
        lifetime_seconds,
        user_agent=request.headers.get("User-Agent"),
        has_second_factor=known.has_second_factor,
    )
    answer = {**_tokens(grant, in_cookies=told["cookie"]), "memberships": memberships_of(known.user_id)}
    device_token = devices.device_token(known.user_id, known.password_hash, device.id if device else None)
    if told["cookie"]:
        devices.keep_device_cookie(device_token)
        return answer
    return {**answer, "device_token": device_token}


@blueprint.post("/refresh")
@access(Access.ANYONE)
@blueprint.arguments(RefreshSchema, required=False)
@blueprint.response(200, TokensSchema)
@refuses(TokenMissing, TokenInvalid, SessionOver, CsrfRequired, TooManyRequests)
def refresh(told: dict[str, str]) -> dict[str, Any]:
    """Trade a refresh token for new tokens of the same session and tenant.

    For some seconds after its first use a refresh token is answered again, with the newest token of the session, so
    tabs may refresh at once. A later use ends the session, because two clients then hold the token. A browser sends
    no body, and X-CSRF-Token.
    """
    in_body = told.get("refresh_token")
    token = in_body or request.cookies.get(cookies.REFRESH_COOKIE)
    if not token:
        raise TokenMissing("There is no refresh token in the body and no cookie with one; log in.")
    session_id = refresh_tokens.session_of(token)
    if not in_body:
        cookies.refuse_forgery(request, session_id)
    overlap_seconds: int = current_app.config["REFRESH_OVERLAP_SECONDS"]
    proven_session = refresh_tokens.proven_session_of(token)
    try:
        count_refresh(proven_session)
    except TooManyRequests:
        if proven_session:  # Who uses up the session's refreshes must not hide the reuse; a stranger costs no query.
            sessions.end_if_reused(token, overlap_seconds=overlap_seconds)
        raise
    grant = sessions.refresh_session(token, overlap_seconds=overlap_seconds)
    return _tokens(grant, in_cookies=not in_body)


@blueprint.post("/logout")
@access(Access.ANYONE)
@blueprint.arguments(LogoutSchema, required=False)
@blueprint.response(204)
@refuses(CsrfRequired, SessionRequired, TooManyRequests)
def logout(told: dict[str, str]) -> None:
    """End the sessions that the request presents: by a refresh token, by an access token, also an expired one, or by
    the cookies. Their tokens are refused from the next request on.

    It clears the cookies, also with a refusal for other reasons than their origin, and is no error for a session that
    is over or unknown. A browser sends no body; a page of the service's origin needs no X-CSRF-Token.
    """
    log_out(request, told.get("refresh_token"))


@blueprint.post("/password")
@access(Access.USER)
@blueprint.arguments(PasswordSchema)
@blueprint.response(200, DeviceSchema)
@refuses(WrongPassword, NoPassword, TooManyRequests, TooManyConcurrentRequests, MemberNotFound)
def change_password(told: dict[str, str]) -> dict[str, str]:
    """Change the caller's password. It ends all other sessions of the user and all device tokens; this
    session stays, and its device gets a new token. A browser has it in its cookie too.
    """
    user_id, session_id = caller().user_id, presented_session()
    with password_attempt(user_id, session_id):
        password_hash = service.change_password(
            credentials_of(user_id), session_id, current=told["current_password"], new=told["new_password"]
        )
    device_token = devices.device_token(user_id, password_hash)
    if request.cookies:
        devices.keep_device_cookie(device_token)
    return {"device_token": device_token}


@well_known.get("/jwks.json")
def show_keys() -> Response:
    """The public keys that verify access tokens (RFC 7517)."""
    response = jsonify(current_mint().keys().published)
    response.headers["Cache-Control"] = f"public, max-age={PUBLISHED_SECONDS}"
    return response


def _tenant_after_second_factor(known: Credentials, code: str | None) -> Tenant | None:
    """The tenant that the log-in names; None if it names none. Only a log-in that can go on uses the code up, and only
    one with a right code is told why its tenant is refused.
    """
    try:
        tenant = named_tenant(known.user_id)
    except (TenantNotFound, TenantAmbiguous, SessionOver):
        service.prove_second_factor(known, code, is_used=False)
        raise
    service.prove_second_factor(known, code)
    return tenant


def _tokens(grant: sessions.Grant, *, in_cookies: bool) -> dict[str, Any]:
    mint = current_mint()
    seconds = min(mint.lifetime_seconds, grant.seconds_left)
    access_token = mint.issue(grant.user_id, grant.tenant_id, grant.session_id, lifetime_seconds=seconds)
    told = {"expires_in": seconds, "refresh_expires_in": grant.seconds_left}
    if in_cookies:
        return {**told, "csrf_token": cookies.keep_in_cookies(grant, access_token, seconds)}
    return {"access_token": access_token, "refresh_token": grant.refresh_token, "token_type": "Bearer", **told}
