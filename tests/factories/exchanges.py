"""Requests of the account's life with their answers, for the examples of the description. Each needs what an earlier
one leaves behind: a session, the token of a mail, a second factor.
"""

from typing import Any
from uuid import uuid4

from flask import Flask
from werkzeug.test import TestResponse

from app.auth.passwords import hash_password
from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.mail import Mailbox
from tests.factories.people import People, Person
from tests.factories.second_factor import Authenticator, switch_on

Json = dict[str, Any]
PASSWORD = "a password that is long enough"
NEW_PASSWORD = "another password that is long enough"
FACTOR = "/api/me/second-factor"


class Exchanges:
    """`kept` has the body and the answer of each exchange, by its operation's name."""

    def __init__(self, app: Flask, database: Database) -> None:
        self.api, self.people, self.mailbox = Api(app), People(app), Mailbox(app)
        self.database = database
        self.kept: dict[str, tuple[Json | None, TestResponse]] = {}
        self._sessions()
        self._mails()
        self._invitation()
        self._second_factor()
        self._tenant()

    def _keep(self, name: str, path: str, person: Person | None, body: Json | None, tenant: str | None = None) -> Any:
        answer = self.api.send("POST", path, person, tenant, json=body)
        assert answer.status_code < 300, (name, answer.text)
        self.kept[name] = body, answer
        return answer.json if answer.data else None

    def _person(self, **about: Any) -> Person:
        return self.people.make(password_hash=hash_password(PASSWORD), **about)

    def _sessions(self) -> None:
        person = self._person(eur="member")
        body = {"email": person.email, "password": PASSWORD}
        token = self.api.send("POST", "/api/auth/login", json=body).json["refreshToken"]
        answer = self._keep("refresh", "/api/auth/refresh", None, {"refreshToken": token})
        self._keep("logout", "/api/auth/logout", None, {"refreshToken": answer["refreshToken"]})
        body = {"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD}
        self._keep("changePassword", "/api/auth/password", person, body)

    def _mails(self) -> None:
        person, new = self._person(eur="member"), f"{uuid4().hex}@example.com"
        body = {"newEmail": new, "currentPassword": PASSWORD}
        self._keep("requestEmailChange", "/api/me/email", person, body)
        self._keep("confirmEmailChange", "/api/auth/email/confirm", None, {"token": self.mailbox.token(new)})
        self.mailbox.collect(new)
        self.api.send("POST", "/api/auth/password/forgotten", json={"email": new})
        body = {"token": self.mailbox.token(new), "newPassword": NEW_PASSWORD}
        self._keep("resetPassword", "/api/auth/password/reset", None, body)

    def _invitation(self) -> None:
        admin, email = self.people.make(eur="admin"), f"{uuid4().hex}@example.com"
        self.api.post("/api/admin/invitations", admin, "eur", json={"email": email, "role": "member"})
        body = {"token": self.mailbox.token(email), "password": PASSWORD, "name": "Test Person"}
        self._keep("acceptInvitation", "/api/auth/invitations/accept", None, body)

    def _second_factor(self) -> None:
        person = self._person(eur="member")
        secret = self._keep("setUpSecondFactor", FACTOR, person, {"currentPassword": PASSWORD})["secret"]
        self._keep("confirmSecondFactor", f"{FACTOR}/confirm", person, {"code": Authenticator(secret).code()})
        other = self._person(eur="member")
        authenticator, _ = switch_on(self.api, other, PASSWORD)
        for name, path in (("replaceRecoveryCodes", "recovery-codes"), ("removeSecondFactor", "remove")):
            body = {"currentPassword": PASSWORD, "code": authenticator.code()}
            self._keep(name, f"{FACTOR}/{path}", other, body)

    def _tenant(self) -> None:
        """The requested tenant is not made."""
        body = {"id": f"example_{uuid4().hex[:8]}", "name": "Example", "currency": "CHF", "locale": "de_CH"}
        made = self._keep("provisionTenant", "/api/admin/tenants", self.people.make(is_operator=True), body)
        with self.database.as_superuser() as superuser:
            superuser.execute("DELETE FROM shared.provisionings WHERE id = %s", (made["id"],))
