"""A browser on Flask's test client."""

from http.cookies import Morsel, SimpleCookie
from typing import Any
from uuid import uuid4

from flask import Flask
from werkzeug.test import TestResponse

from tests.factories.people import Person

PASSWORD = "correct horse battery staple"


class Browser:
    """Sends its cookies without being asked, each to its path."""

    def __init__(self, app: Flask) -> None:
        self._client = app.test_client(use_cookies=False)
        self.cookies: dict[str, Morsel[str]] = {}
        self.csrf = ""

    def send(self, method: str, path: str, *, csrf: str | None = None, **more: Any) -> TestResponse:
        sent = [f"{name}={kept.value}" for name, kept in self.cookies.items() if path.startswith(kept["path"])]
        headers = {"Cookie": "; ".join(sent)} if sent else {}
        headers |= {"X-CSRF-Token": csrf} if csrf is not None else {}
        response = self._client.open(path, method=method, headers=headers | more.pop("headers", {}), **more)
        for line in response.headers.getlist("Set-Cookie"):
            for name, kept in SimpleCookie(line).items():
                self.cookies.pop(name, None)
                if kept["max-age"] != "0":
                    self.cookies[name] = kept
        return response

    def login(self, person: Person, path: str = "/api/auth/login", **more: Any) -> TestResponse:
        body = {"email": person.email, "password": PASSWORD, "cookie": True}
        response = self.send("POST", path, json=body, **more)
        self.csrf = (response.json or {}).get("csrfToken", "")
        return response

    def pay(self, slug: str, **more: Any) -> TestResponse:
        headers = {"Idempotency-Key": uuid4().hex, **more.pop("headers", {})}
        return self.send("POST", f"/api/{slug}/wallet/payments", headers=headers, json={"amount": "0.01"}, **more)
