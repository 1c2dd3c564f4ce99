"""Tokens in cookies for browser pages: HttpOnly, Secure, SameSite=Strict, for this host only. Page scripts can't read
them.

Browsers send cookies without being asked. So a request that changes something must also carry the CSRF token, which
only this service's pages can read, and must not come from another origin. The CSRF token is an HMAC of the session's
id: it is not stored, and the token of another session does not match. Pages of CORS_ORIGINS are of another origin too:
they send tokens in headers and bodies, and no cookie counts there.
"""

import hmac
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from flask import Request, Response, after_this_request

from app.api.requests import SAFE_METHODS
from app.auth.errors import CsrfRequired
from app.auth.sessions import Grant
from app.derived_keys import mac_of

ACCESS_COOKIE: Final = "__Host-access"
REFRESH_COOKIE: Final = "__Secure-refresh"  # __Host- requires the path /; this cookie is sent to AUTH_PATH only
CSRF_COOKIE: Final = "__Host-csrf"
AUTH_PATH: Final = "/api"  # has /api/auth and /api/<tenant>/auth: a page may log in at one and refresh at the other
FORMER_PATH: Final = "/api/auth"  # of release 0.2.0; a browser would send that cookie first, and a used token by it
CSRF_HEADER: Final = "X-CSRF-Token"


def csrf_token(session_id: UUID) -> str:
    return mac_of("csrf", session_id.bytes).hex()


def refuse_forgery(request: Request, session_id: UUID) -> None:
    """Accept safe methods, and requests that carry the session's CSRF token and come from the same origin. Raises
    CsrfRequired.
    """
    if request.method in SAFE_METHODS:
        return
    if not _has_csrf_token(request, session_id):
        raise CsrfRequired(f"With a cookie, send {CSRF_HEADER} with the csrfToken of the session.")
    refuse_other_origins(request)


def refuse_other_origins(request: Request) -> None:
    """Raises CsrfRequired if the browser reports another origin."""
    if _is_of_own_page(request) is False:
        raise CsrfRequired("The request comes from a page of another origin.")


def may_log_out(request: Request, sessions: Iterable[UUID | None], *, has_token: bool) -> bool:
    """Whether a log-out may end these sessions, which its cookies name, and clear the cookies. A page that was loaded
    again may have lost the CSRF token, or has that of another log-in, and must be able to log out: the browser's word
    that the request comes from the same origin is enough. A client that reports no origin sends the CSRF token, or a
    token in the Authorization header or a JSON body (`has_token`): a page of another origin can send neither.
    """
    is_of_own_page = _is_of_own_page(request)
    if is_of_own_page is not None:
        return is_of_own_page
    named = [session_id for session_id in sessions if session_id]
    return not named or has_token or any(_has_csrf_token(request, session_id) for session_id in named)


def _is_of_own_page(request: Request) -> bool | None:
    """Whether the browser reports this origin, or another; None if it reports neither. The scheme is not compared,
    because a proxy may terminate TLS.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site not in {None, "same-origin", "none"} or (origin is not None and _host_of(origin) != request.host):
        return False
    return True if site == "same-origin" or origin is not None else None


def _has_csrf_token(request: Request, session_id: UUID) -> bool:
    shown = request.headers.get(CSRF_HEADER, "")
    return hmac.compare_digest(shown.encode(), csrf_token(session_id).encode())


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def keep_in_cookies(grant: Grant, access_token: str, access_seconds: int) -> str:
    """Set the token cookies in the answer to the current request. Returns the CSRF token; a cookie that page scripts
    can read holds it too, for a page that is loaded again.
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
    """Clear the token cookies in the answer to the current request. The device's cookie stays."""

    @after_this_request
    def forget(response: Response) -> Response:
        for name in (ACCESS_COOKIE, REFRESH_COOKIE, CSRF_COOKIE):
            _set(response, name, "", 0)
        return response


def _set(response: Response, name: str, value: str, max_age: int) -> None:
    if name == REFRESH_COOKIE:
        set_below_auth_path(response, name, value, max_age)
    else:
        is_hidden = name != CSRF_COOKIE
        response.set_cookie(name, value, max_age, path="/", secure=True, httponly=is_hidden, samesite="Strict")


def set_below_auth_path(response: Response, name: str, value: str, max_age: int) -> None:
    """Set a hidden cookie for AUTH_PATH, and clear the one of this name that an earlier release set for FORMER_PATH."""
    for path, kept, lifetime in ((FORMER_PATH, "", 0), (AUTH_PATH, value, max_age)):
        response.set_cookie(name, kept, lifetime, path=path, secure=True, httponly=True, samesite="Strict")
