"""Log-out: it ends the sessions that the request presents, and clears the cookies. A session that is over is no error.
A page of another origin can neither end a session by its cookies nor clear them.
"""

from uuid import UUID

from flask import Request

from app.auth import cookies, refresh_tokens, sessions
from app.auth.credentials import refuse_provider_token, session_of_header
from app.auth.errors import CsrfRequired, TokenInvalid
from app.auth.tokens import current_mint
from app.limits.attempts import count_refresh, log_out_attempt


def log_out(request: Request, refresh_token: str | None) -> None:
    """End the session of the refresh token in the body, of the access token in the header, also of an expired one, and
    of the cookies. What names no session that lasts ends nothing. Each end is committed by itself, and all sessions
    that the request proves end before anything is refused.

    Raises CsrfRequired if the request has no token but cookies, and may be forged. The other refusals leave no cookies:
    TooManyRequests for many refresh tokens that this service did not make, and SessionRequired for an OpenID provider's
    token.
    """
    header = request.headers.get("Authorization")
    kept = request.cookies.get(cookies.REFRESH_COOKIE)
    of_cookie = _session_of_access_cookie(request)
    named, has_token = [of_cookie, _session_named_by(kept) if kept else None], bool(refresh_token or header)
    takes_cookies = cookies.may_log_out(request, named, has_token=has_token)
    if not takes_cookies and not has_token:
        raise CsrfRequired(f"Send {cookies.CSRF_HEADER} with the csrfToken of the session.")
    if takes_cookies:
        cookies.forget_cookies()
    for session_id in (session_of_header(header) if header else None, of_cookie if takes_cookies else None):
        if session_id:
            _end_session(session_id)
    _end_by_refresh_tokens([token for token in (refresh_token, kept if takes_cookies else None) if token])
    if header:
        refuse_provider_token(header)


def _end_session(session_id: UUID) -> None:
    with log_out_attempt(session_id) as is_needed:
        if is_needed:
            sessions.end_session_at_once(session_id)


def _end_by_refresh_tokens(tokens: list[str]) -> None:
    """Those with a right tag come first: the others count for the client's address, which may be over its limit. Raises
    TooManyRequests.
    """
    proven = {token: refresh_tokens.proven_session_of(token) for token in tokens}
    for token in sorted(tokens, key=lambda each: proven[each] is None):
        session_id = proven[token]
        if session_id is None:
            count_refresh(None)
            sessions.end_session_of(token)
        else:
            with log_out_attempt(session_id) as is_needed:
                if is_needed:
                    sessions.end_session_of(token)


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
