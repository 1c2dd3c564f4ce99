"""The page at /docs: Swagger UI on /openapi.json. It loads nothing from the network, and the Content-Security-Policy
allows files of this service only, no script and no style in the page.
"""

from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Final

import flask_swagger_ui
from flask import Blueprint, Response, send_from_directory

from app.api.answers import CONTENT_SECURITY_POLICY

FILES: Final = Path(flask_swagger_ui.__file__).parent / "dist"
# The one style that Swagger UI writes into the page, of its logo. It draws its icons from data: URLs.
LOGO_STYLE: Final = ".logo_small_svg__cls-2{fill:#fff}.logo_small_svg__cls-3{fill:#85ea2d}"
_LOGO_HASH: Final = b64encode(sha256(LOGO_STYLE.encode()).digest()).decode()
PAGE_POLICY: Final = (
    f"default-src 'none'; script-src 'self'; style-src 'self' 'sha256-{_LOGO_HASH}'; img-src 'self' data:; "
    "connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>schema-wallet</title>
<link rel="stylesheet" href="/docs/index.css">
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png" sizes="32x32">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/swagger-ui-standalone-preset.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
START: Final = """SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    layout: "StandaloneLayout",
    presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
    validatorUrl: null
});
"""

blueprint = Blueprint("documentation_page", __name__, url_prefix="/docs")


@blueprint.get("/")
def show_page() -> Response:
    return _under_policy(Response(PAGE, mimetype="text/html"))


@blueprint.get("/start.js")
def show_start() -> Response:
    return Response(START, mimetype="text/javascript")


@blueprint.get("/<path:path>")
def show_file(path: str) -> Response:
    return _under_policy(send_from_directory(FILES, path))


def _under_policy(response: Response) -> Response:
    response.headers[CONTENT_SECURITY_POLICY[0]] = PAGE_POLICY
    return response
