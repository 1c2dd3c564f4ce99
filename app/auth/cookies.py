"""Tokens in cookies, for pages that must not hold them: HttpOnly, Secure, SameSite=Strict, for this host alone.

A browser sends cookies by itself, so a request that changes something must also show the CSRF token, which only a page
of ours can read, and must not say that it comes from another origin. That token is an HMAC over the session's id:
nothing is kept, and one of another session is worth nothing.
"""

import hmac
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from flask import Request, Response, after_this_request, current_app

from app.api.requests import SAFE_METHODS
from app.auth.errors import CsrfRequired
from app.auth.sessions import Grant

ACCESS_COOKIE: Final = "__Host-access"
REFRESH_COOKIE: Final = "__Secure-refresh"  # __Host- would want the path /, and it is sent where it is needed only
CSRF_COOKIE: Final = "__Host-csrf"
REFRESH_PATH: Final = "/api/auth"
CSRF_HEADER: Final = "X-CSRF-Token"


def csrf_token(session_id: UUID) -> str:
    secret: str = current_app.config["SECRET_KEY"]
    return hmac.digest(secret.encode(), b"csrf:" + session_id.bytes, "sha256").hex()


def refuse_forgery(request: Request, session_id: UUID) -> None:
    """Let through what changes nothing, and what our own page sent. Raises CsrfRequired."""
    if request.method in SAFE_METHODS:
        return
    shown = request.headers.get(CSRF_HEADER, "")
    if not hmac.compare_digest(shown.encode(), csrf_token(session_id).encode()):
        raise CsrfRequired(f"With a cookie, send {CSRF_HEADER} with the csrfToken of the session.")
    refuse_other_origins(request)


def refuse_other_origins(request: Request) -> None:
    """Raises CsrfRequired if the browser says that another site's page sends this. The scheme is not compared, for a
    proxy in front may speak TLS for us.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site not in {None, "same-origin", "none"} or (origin is not None and _host_of(origin) != request.host):
        raise CsrfRequired("This was sent by a page of another origin.")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def keep_in_cookies(grant: Grant, access_token: str, access_seconds: int) -> str:
    """Put the tokens into cookies of the answer to the current request. Returns the CSRF token, which goes with them in
    a cookie that a page can read, for when it is loaded again.
    """
    shown = csrf_token(grant.session_id)
    kept = (
        (ACCESS_COOKIE, access_token, access_seconds),
        (REFRESH_COOKIE, grant.refresh_token, grant.seconds_left),
        (CSRF_COOKIE, shown, grant.seconds_left),
    )

    @after_this_request
    def keep(response: Response) -> Response:
        for name, value, lifetime in kept:
            _set(response, name, value, lifetime)
        return response

    return shown


def forget_cookies() -> None:
    """Clear them in the answer to the current request."""

    @after_this_request
    def forget(response: Response) -> Response:
        for name in (ACCESS_COOKIE, REFRESH_COOKIE, CSRF_COOKIE):
            _set(response, name, "", 0)
        return response


def _set(response: Response, name: str, value: str, max_age: int) -> None:
    path = REFRESH_PATH if name == REFRESH_COOKIE else "/"
    is_hidden = name != CSRF_COOKIE
    response.set_cookie(name, value, max_age, path=path, secure=True, httponly=is_hidden, samesite="Strict")
