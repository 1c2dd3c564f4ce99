"""The ways to authenticate, as OpenAPI describes them."""

from typing import Any, Final

from app.auth.cookies import ACCESS_COOKIE, CSRF_HEADER

SECURITY_SCHEMES: Final[dict[str, Any]] = {
    "token": {
        **{"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "description": "The accessToken of a login (its keys are at /.well-known/jwks.json), or an API key.",
    },
    "cookie": {
        **{"type": "apiKey", "in": "cookie", "name": ACCESS_COOKIE},
        "description": "For browsers, after a login with `cookie`. An Authorization header has precedence.",
    },
    "csrf": {
        **{"type": "apiKey", "in": "header", "name": CSRF_HEADER},
        "description": "The csrfToken of the login, with a cookie, for every request that changes something.",
    },
}

# A token alone, or a cookie together with the CSRF token.
SECURITY: Final[list[dict[str, Any]]] = [{"token": []}, {"cookie": [], "csrf": []}]
