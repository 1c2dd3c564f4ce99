"""The demo's admin of a tenant, who gives the stand-in what it needs, by HTTP."""

import json
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.request import Request, urlopen
from uuid import UUID

ADDRESS = "admin@example.com"
SECONDS = 30


@dataclass(frozen=True, slots=True)
class Admin:
    """Logged in at the tenant."""

    url: str
    tenant_id: str
    token: str

    def make_webhook(self, url: str) -> str:
        """Returns the secret."""
        return str(self._post("/webhooks", {"url": url})["secret"])

    def make_api_key(self) -> UUID:
        """Of a service, which may move money. Returns its id."""
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        return UUID(self._post("/api-keys", {"name": "stand-in", "role": "service", "expiresAt": tomorrow})["id"])

    def _post(self, path: str, body: dict[str, str]) -> dict[str, Any]:
        return _post(f"{self.url}/admin{path}", body, {"Authorization": f"Bearer {self.token}"})


def log_in(port: int, slug: str, password: str) -> Admin:
    """Log in at this tenant. The token says the tenant's id."""
    url = f"http://127.0.0.1:{port}/api/{slug}"
    token = str(_post(f"{url}/auth/login", {"email": ADDRESS, "password": password}, {})["accessToken"])
    claims = json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))
    return Admin(url, str(claims["tenant"]), token)


def _post(url: str, body: dict[str, str], headers: dict[str, str]) -> dict[str, Any]:
    sent = {"Content-Type": "application/json", **headers}
    request = Request(url, json.dumps(body).encode(), sent)  # noqa: S310  Its scheme is http.
    with urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
        return cast(dict[str, Any], json.load(answer))
