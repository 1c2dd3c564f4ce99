"""/api/me and /api/auth: the caller's own account, and a forgotten password."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.accounts import own_sessions, service
from app.accounts.schemas import (
    ChangeEmailSchema,
    ConfirmEmailSchema,
    ForgottenPasswordSchema,
    ProfileSchema,
    ResetPasswordSchema,
    SessionPageSchema,
    UpdateMeSchema,
)
from app.api.blueprint import Blueprint
from app.api.pagination import Page, PageQuery, paginate
from app.api.refusals import refuses
from app.auth import devices
from app.auth.access import Access, access, caller
from app.auth.credentials import presented_session
from app.auth.errors import SessionNotFound
from app.auth.schemas import DeviceSchema
from app.auth.service import PASSWORD_REFUSALS, confirm_password, lock_account
from app.auth.sessions import end_other_sessions
from app.current import current_app
from app.errors import TooManyRequests
from app.limits.attempts import count_reset_mail, token_attempt
from app.limits.concurrency import TooManyConcurrentRequests
from app.limits.rate_limit import count_attempt
from app.mail.outbox import AccountTokenNotFound, ask_for_reset
from app.users.errors import MemberNotFound, UserExists
from app.users.models import User

blueprint = Blueprint("accounts", __name__, url_prefix="/api", description="The caller's own account.")


@blueprint.post("/auth/password/forgotten")
@access(Access.ANYONE)
@blueprint.arguments(ForgottenPasswordSchema)
@blueprint.response(202)
@refuses(TooManyRequests)
def request_password_reset(body: dict[str, str]) -> None:
    """Send a mail with a token for a new password. The answer is the same for an unknown address.

    An account of an identity provider has no password, and the mail says so. An unused token is sent again and lives
    on, so each of the mails works.
    """
    count_reset_mail(body["email"])
    has_provider = "openid_provider" in current_app.extensions
    ask_for_reset(body["email"], seconds=current_app.config["RESET_SECONDS"], has_provider=has_provider)


@blueprint.post("/auth/password/reset")
@access(Access.ANYONE)
@blueprint.arguments(ResetPasswordSchema)
@blueprint.response(200, DeviceSchema)
@refuses(AccountTokenNotFound, TooManyRequests, TooManyConcurrentRequests)
def reset_password(body: dict[str, str]) -> dict[str, str]:
    """Set a new password with the token of a mail. It ends all sessions of the user; a second factor stays.

    Log in afterwards, with the `deviceToken` of the answer or its cookie: then strangers who guess can't hold it up.
    """
    with token_attempt():
        owner = service.reset_password(body["token"], body["new_password"])
    device_token = devices.device_token(owner.user_id, owner.password_hash)
    devices.keep_device_cookie(device_token)
    return {"device_token": device_token}


@blueprint.patch("/me")
@access(Access.USER)
@blueprint.arguments(UpdateMeSchema)
@blueprint.response(200, ProfileSchema)
@refuses(MemberNotFound)
def update_me(body: dict[str, str]) -> User:
    """Change the caller's name. A tenant that calls the caller by another name keeps that."""
    lock_account(caller().user_id, presented_session())
    return service.rename_user(caller().user_id, body["name"])


@blueprint.post("/me/email")
@access(Access.USER)
@blueprint.arguments(ChangeEmailSchema)
@blueprint.response(202)
@refuses(*PASSWORD_REFUSALS)
def request_email_change(body: dict[str, str]) -> None:
    """Send a mail with a token to a new address. The account keeps its address until the token is confirmed, and its
    present address gets a mail too. Another request or a new password ends the token.

    The answer is the same if another account has the address.
    """
    user_id = caller().user_id
    count_attempt("mail", str(user_id), current_app.config["MAIL_RATE_LIMIT"])
    confirm_password(user_id, presented_session(), body["current_password"])
    service.ask_for_email_change(user_id, body["new_email"], seconds=current_app.config["EMAIL_CHANGE_SECONDS"])


@blueprint.post("/auth/email/confirm")
@access(Access.ANYONE)
@blueprint.arguments(ConfirmEmailSchema)
@blueprint.response(204)
@refuses(AccountTokenNotFound, UserExists, TooManyRequests)
def confirm_email_change(body: dict[str, str]) -> None:
    """Give the account the address to which the token was sent. Both addresses get a mail."""
    with token_attempt():
        service.confirm_email_change(body["token"])


@blueprint.get("/me/sessions")
@access(Access.USER)
@blueprint.arguments(PageQuery, location="query")
@blueprint.response(200, SessionPageSchema)
def list_my_sessions(query: dict[str, Any]) -> Page[sa.Row[Any]]:
    """The caller's sessions that last, newest first. Sessions at an identity provider are not known here."""
    user_id, current = caller().user_id, presented_session()
    return paginate(
        query,
        lambda after, limit: own_sessions.list_sessions(user_id, current, after=after, limit=limit),
        lambda item: [item.started_at, item.id],
    )


@blueprint.delete("/me/sessions/<uuid:session_id>")
@access(Access.USER)
@blueprint.response(204)
@refuses(SessionNotFound)
def end_my_session(session_id: UUID) -> None:
    """End one of the caller's sessions: its tokens are refused from the next request on."""
    lock_account(caller().user_id, presented_session())
    own_sessions.end_own_session(caller().user_id, session_id)


@blueprint.delete("/me/sessions")
@access(Access.USER)
@blueprint.response(204)
def end_my_other_sessions() -> None:
    """End all sessions of the caller but this one."""
    lock_account(caller().user_id, presented_session())
    end_other_sessions(caller().user_id, presented_session(), "logout")
