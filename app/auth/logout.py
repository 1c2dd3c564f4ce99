"""Log-out: it ends the sessions that the request presents, and clears the cookies. A session that is over is no error.
A page of another origin can neither end a session by its cookies nor clear them.
"""

from uuid import UUID

from flask import Request

from app.auth import cookies, refresh_tokens, sessions
from app.auth.credentials import session_of_header
from app.auth.errors import CsrfRequired, TokenInvalid
from app.auth.tokens import current_mint
from app.limits.attempts import count_log_out


def log_out(request: Request, refresh_token: str | None) -> None:
    """End the session of the refresh token in the body, of the access token in the header, also of an expired one, and
    of the cookies. What names no session that lasts ends nothing. The session of the access token is committed with the
    request, the others when this returns.

    Raises CsrfRequired if the request has no token but cookies, and may be forged; SessionRequired for an OpenID
    provider's token; TooManyRequests for a session that is logged out again and again, and for many refresh tokens that
    this service did not make.
    """
    header = request.headers.get("Authorization")
    kept = request.cookies.get(cookies.REFRESH_COOKIE)
    of_header = session_of_header(header) if header else None
    of_cookie = _session_of_access_cookie(request)
    named, has_token = [of_cookie, _session_named_by(kept) if kept else None], bool(refresh_token or header)
    takes_cookies = cookies.may_log_out(request, named, has_token=has_token)
    if not takes_cookies and not has_token:
        raise CsrfRequired(f"Send {cookies.CSRF_HEADER} with the csrfToken of the session.")
    for token in (refresh_token, kept if takes_cookies else None):
        if token:
            _end_by_refresh_token(token)
    for session_id in (of_header, of_cookie if takes_cookies else None):
        if session_id:
            count_log_out(session_id)
            sessions.end_session(session_id)
    if takes_cookies:
        cookies.forget_cookies()


def _session_of_access_cookie(request: Request) -> UUID | None:
    text = request.cookies.get(cookies.ACCESS_COOKIE)
    try:
        return current_mint().read(text).session_id if text else None
    except TokenInvalid:
        return None


def _session_named_by(token: str) -> UUID | None:
    try:
        return refresh_tokens.session_of(token)
    except TokenInvalid:
        return None


def _end_by_refresh_token(token: str) -> None:
    count_log_out(refresh_tokens.proven_session_of(token))
    sessions.end_session_of(token)
