"""A client of the API: Flask's own test client, which runs the whole WSGI application, and the parts that every call
repeats.
"""

from typing import Any, Final
from uuid import UUID, uuid4

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.factories.people import Person

# A well-formed id that nothing has. It is fixed, so that a test has the same name in every process.
ID_OF_NOTHING: Final = UUID("9f2c1f6e-0d52-4b43-8a51-5b9a3f0e7c11")


class ClosingClient(FlaskClient):
    """Flask's client that reads and closes each answer at once, unless `buffered=False`. Until then the request has its
    slot of the service, and garbage collection, which closes it otherwise, may come late.
    """

    def open(self, *arguments: Any, buffered: bool = True, **named: Any) -> TestResponse:
        return super().open(*arguments, buffered=buffered, **named)


class Api:
    def __init__(self, app: Flask) -> None:
        self.client = app.test_client()

    def get(self, path: str, person: Person | None = None, tenant: str | None = None, **more: Any) -> TestResponse:
        return self.send("GET", path, person, tenant, **more)

    def post(
        self,
        path: str,
        person: Person | None = None,
        tenant: str | None = None,
        *,
        key: str | None = None,
        **more: Any,
    ) -> TestResponse:
        """POST with its own Idempotency-Key unless `key` gives one."""
        headers = {"Idempotency-Key": key or uuid4().hex, **more.pop("headers", {})}
        return self.send("POST", path, person, tenant, headers=headers, **more)

    def patch(
        self, path: str, person: Person, tenant: str, *, if_match: str | None = None, **more: Any
    ) -> TestResponse:
        headers = {"If-Match": if_match} if if_match else {}
        return self.send("PATCH", path, person, tenant, headers=headers, **more)

    def send(
        self,
        method: str,
        path: str,
        person: Person | None = None,
        tenant: str | None = None,
        *,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> TestResponse:
        sent = dict(headers or {})
        if method in {"PATCH", "PUT"}:
            sent.setdefault("If-Match", "*")
        if person is not None:
            sent["Authorization"] = f"Bearer {person.token}"
        if tenant is not None:
            sent["X-Tenant"] = tenant
        return self.client.open(path, method=method, headers=sent, **more)
