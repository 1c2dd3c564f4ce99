"""CORS (the Fetch standard) for the pages of the origins in CORS_ORIGINS. Without that setting nothing is registered.

Such pages send tokens in the Authorization header. Credentials are not allowed: a browser shows a page of another
origin no answer to a request with cookies, and `app/auth/cookies.py` refuses such a request if it changes something. So
cookies are for pages of the service's own origin, which need no CORS.
"""

import re
from typing import Final

from flask import Flask, Response
from flask_cors import CORS

from app.current import request

RESOURCES: Final = (r"/api/.*", r"/openapi\.json", r"/\.well-known/.*")
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
# What a page may send. X-CSRF-Token is not in the list: it belongs to cookies.
REQUEST_HEADERS: Final = (
    *("Accept", "Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "X-Request-ID"),
    "X-Tenant",
)
# What a page may read of an answer, beside the headers that every page may read.
ANSWER_HEADERS: Final = (
    *("Content-Disposition", "Deprecation", "ETag", "Idempotent-Replayed", "Link", "Location", "RateLimit"),
    *("RateLimit-Limit", "RateLimit-Policy", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After", "Sunset"),
    *("WWW-Authenticate", "X-Request-ID"),
)
PREFLIGHT_SECONDS: Final = 7200  # Chromium keeps no answer to a preflight longer.


def init_app(app: Flask, origins: tuple[str, ...]) -> None:
    """Answer the pages of these origins. Call it before the limits and the gate are registered: a preflight has no
    token, and must be answered before them.
    """
    if not origins:
        return
    app.before_request(_answer_preflight)
    app.after_request(_vary)
    CORS(
        app,
        resources=[re.compile(rf"{path}\Z") for path in RESOURCES],
        origins=[re.compile(rf"{re.escape(origin)}\Z") for origin in origins],  # flask-cors ignores the case of text.
        methods=METHODS,
        allow_headers=REQUEST_HEADERS,
        expose_headers=ANSWER_HEADERS,
        max_age=PREFLIGHT_SECONDS,
        supports_credentials=False,
        always_send=False,
        vary_header=False,
        intercept_exceptions=False,  # The hook below Flask's handlers sees their answers.
    )


def _answer_preflight() -> Response | None:
    """flask-cors adds the headers, if the origin is one of the setting's."""
    is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
    return Response(status=204) if is_preflight and "Origin" in request.headers else None


def _vary(response: Response) -> Response:
    """A cache must not give one origin the answer for another, nor for none."""
    response.vary.add("Origin")
    return response
