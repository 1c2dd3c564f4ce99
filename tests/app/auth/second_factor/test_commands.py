"""`flask users remove-second-factor` lets a user in again who has lost the second factor."""

import structlog
from flask import Flask

from app.auth.passwords import hash_password
from tests.factories.api import Api
from tests.factories.mail import Mailbox
from tests.factories.people import People
from tests.factories.second_factor import switch_on

PASSWORD = "correct horse battery staple"


def test_a_lost_factor_is_removed_noted_and_told(app: Flask, api: Api, people: People, mailbox: Mailbox) -> None:
    person = people.make(password_hash=hash_password(PASSWORD), eur="member")
    switch_on(api, person, PASSWORD)
    mailbox.collect(person.email)
    with structlog.testing.capture_logs() as logged:
        result = app.test_cli_runner().invoke(args=["users", "remove-second-factor", person.email])
    assert (result.exit_code, result.output) == (0, f"{person.email} has no second factor\n")
    assert [(entry["event"], entry["user_id"]) for entry in logged] == [("second_factor_removed", str(person.user_id))]
    assert mailbox.subjects(person.email) == ["Your second factor is off"]
    body = {"email": person.email, "password": PASSWORD}
    assert api.send("POST", "/api/auth/login", json=body).status_code == 200


def test_nobody_without_a_factor_loses_one(app: Flask, people: People) -> None:
    for email, said in (("nobody@example.com", "no user"), (people.make(eur="member").email, "no second factor")):
        result = app.test_cli_runner().invoke(args=["users", "remove-second-factor", email])
        assert result.exit_code == 1
        assert said in result.output
