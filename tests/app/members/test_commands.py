"""`flask members add` adds members from the command line, and reports why it can't."""

from typing import Any
from uuid import uuid4

import pytest
from click.testing import Result
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.mail import Mailbox
from tests.factories.people import People

OVER_TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])


def add(app: Flask, email: str, *options: str, **more: Any) -> Result:
    return app.test_cli_runner().invoke(args=["members", "add", email, *options], **more)


def new_email() -> str:
    return f"{uuid4().hex}@example.com"


def roles_of(database: Database, email: str) -> dict[str, str]:
    query = (
        "SELECT t.slug, m.role FROM shared.users u JOIN shared.memberships m ON m.user_id = u.id"
        " JOIN shared.tenants t ON t.id = m.tenant_id WHERE u.email = %s"
    )
    return dict(database.as_superuser().execute(query, (email,)).fetchall())


def users_with(database: Database, email: str) -> int:
    row = database.as_superuser().execute("SELECT count(*) FROM shared.users WHERE email = %s", (email,)).fetchone()
    return int(row[0]) if row else 0


@OVER_TENANTS
def test_a_new_user_is_made_let_in_and_can_log_in(app: Flask, api: Api, database: Database, slug: str) -> None:
    email = new_email()
    result = add(app, email.upper(), "--tenant", slug, "--name", "Ana", "--password", "correct horse")
    assert (result.exit_code, result.exception) == (0, None), result.output
    assert result.output == f"{email.upper()} is member in {slug}\n"
    assert roles_of(database, email) == {slug: "member"}
    query = f"SELECT action, actor_kind, after FROM {slug}_schema.audit_log ORDER BY seq DESC LIMIT 1"
    told = database.as_tenant(slug).execute(query.encode()).fetchall()
    assert told == [("member.add", "system", {"role": "member"})]
    answer = api.send("POST", "/api/auth/login", tenant=slug, json={"email": email, "password": "correct horse"})
    assert answer.json["memberships"] == [{"tenantId": slug, "role": "member"}]


def test_a_password_is_asked_for_twice_and_never_shown(app: Flask, database: Database) -> None:
    email = new_email()
    result = add(app, email, "--tenant", "eur", input="correct horse\ncorrect horse\n")
    assert result.exit_code == 0, result.output
    assert "correct horse" not in result.output
    assert roles_of(database, email) == {"eur": "member"}


def test_two_different_passwords_make_no_user(app: Flask, database: Database) -> None:
    email = new_email()
    result = add(app, email, "--tenant", "eur", input="correct horse\nbattery staple\n")
    assert result.exit_code == 1
    assert users_with(database, email) == 0


def test_a_password_can_come_from_the_environment(app: Flask, database: Database) -> None:
    email = new_email()
    result = add(app, email, "--tenant", "km", env={"MEMBER_PASSWORD": "correct horse"})
    assert result.exit_code == 0, result.output
    assert roles_of(database, email) == {"km": "member"}


def test_a_password_for_an_address_that_exists_is_an_error_and_changes_nothing(
    app: Flask, people: People, database: Database
) -> None:
    person = people.make(eur="member", password_hash="unchanged")
    result = add(app, person.email, "--tenant", "km", "--password", "correct horse")
    assert result.exit_code == 1
    assert "exists already" in result.output
    assert "set-password" in result.output
    assert roles_of(database, person.email) == {"eur": "member"}
    query = "SELECT password_hash FROM shared.users WHERE id = %s"
    assert database.as_superuser().execute(query, (person.user_id,)).fetchall() == [("unchanged",)]


def test_an_invited_address_becomes_a_member_when_it_accepts(
    app: Flask, api: Api, database: Database, mailbox: Mailbox
) -> None:
    email = new_email()
    result = add(app, email, "--tenant", "eur", "--role", "admin", "--invite")
    assert (result.exit_code, result.output) == (0, f"{email} is invited to eur as admin\n")
    assert roles_of(database, email) == {}
    body = {"token": mailbox.token(email), "password": "correct horse"}
    assert api.send("POST", "/api/auth/invitations/accept", json=body).status_code == 200
    assert roles_of(database, email) == {"eur": "admin"}
    assert add(app, new_email(), "--tenant", "eur", "--invite", "--password", "correct horse").exit_code == 2


def test_a_known_user_is_let_into_another_tenant_and_asked_for_no_password(
    app: Flask, people: People, database: Database
) -> None:
    person = people.make(eur="member")
    result = add(app, person.email, "--tenant", "km", "--role", "admin")
    assert (result.exit_code, result.output) == (0, f"{person.email} is admin in km\n")
    assert roles_of(database, person.email) == {"eur": "member", "km": "admin"}
    assert users_with(database, person.email) == 1


@OVER_TENANTS
def test_a_role_can_be_changed_and_counts_at_once(
    app: Flask, api: Api, people: People, database: Database, slug: str
) -> None:
    person = people.make(eur="member", km="member")
    wallet = f"/api/admin/wallets/{people.wallet(person, slug)}"
    for role, status in (("admin", 200), ("member", 403)):
        assert add(app, person.email, "--tenant", slug, "--role", role).exit_code == 0
        assert api.get(wallet, person, slug).status_code == status
    assert roles_of(database, person.email) == {"eur": "member", "km": "member"}


def test_an_unknown_tenant_is_named_and_nothing_is_made(app: Flask, database: Database) -> None:
    email = new_email()
    result = add(app, email, "--tenant", "nope", "--password", "correct horse")
    assert result.exit_code == 1
    assert "There is no tenant 'nope'." in result.output
    assert "Traceback" not in result.output
    assert users_with(database, email) == 0


@pytest.mark.parametrize("options", [[], ["--tenant", "eur", "--role", "owner"], ["--tenant", "eur", "--rank", "1"]])
def test_wrong_arguments_are_refused(app: Flask, database: Database, options: list[str]) -> None:
    email = new_email()
    assert add(app, email, *options).exit_code == 2
    assert users_with(database, email) == 0


@pytest.mark.parametrize("name", ["", "Ana\x1b[31m", "Ana\u202eeve", "A" * 201], ids=ascii)
@pytest.mark.parametrize("way", [["--password", "correct horse"], ["--invite"]], ids=" ".join)
def test_a_name_that_http_refuses_is_refused(app: Flask, database: Database, way: list[str], name: str) -> None:
    email = new_email()
    result = add(app, email, "--tenant", "eur", "--name", name, *way)
    assert (result.exit_code, "--name" in result.output) == (2, True)
    assert users_with(database, email) == 0


UNUSABLE = {
    "no address": ("", "correct horse"),
    "white space for an address": ("  ", "correct horse"),
    "an address with a control character": ("ana\x1b[31m@example.com", "correct horse"),
    "an address too long": ("a" * 243 + "@example.com", "correct horse"),
    "two addresses": ("ana@example.com,eve@example.com", "correct horse"),
    "a password of one character": ("{new}", "x"),
    "a password of eleven characters": ("{new}", "x" * 11),
    "the address as password": ("an.address@example.com", "An.Address@example.com"),
    "a password with a control character": ("{new}", "correct\rhorse"),
    "a password too long": ("{new}", "x" * 1025),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_nobody_is_made_whom_the_login_would_refuse_to_read(app: Flask, database: Database, what: str) -> None:
    email, password = UNUSABLE[what]
    email = email.replace("{new}", new_email())
    result = add(app, email, "--tenant", "eur", "--password", password)
    assert result.exit_code in {1, 2}, result.output
    assert users_with(database, email.strip().lower()) == 0


@OVER_TENANTS
def test_who_was_let_in_without_a_password_can_be_given_one(app: Flask, api: Api, people: People, slug: str) -> None:
    email = new_email()
    admin = people.make(eur="admin", km="admin")
    api.post("/api/admin/members", admin, slug, json={"email": email, "role": "member"})
    result = app.test_cli_runner().invoke(
        args=["members", "set-password", email.upper()], input="correct horse\ncorrect horse\n"
    )
    assert result.exit_code == 0, result.output
    assert "correct horse" not in result.output
    answer = api.send("POST", "/api/auth/login", tenant=slug, json={"email": email, "password": "correct horse"})
    assert answer.json["memberships"] == [{"tenantId": slug, "role": "member"}]


def test_a_new_password_ends_the_users_sessions_and_nobody_elses(
    app: Flask, people: People, database: Database
) -> None:
    person, other = people.make(eur="member"), people.make(eur="member")
    insert = "INSERT INTO shared.sessions (user_id, expires_at) VALUES (%s, now() + interval '1 day')"
    with database.as_superuser() as superuser:
        for user_id in (person.user_id, other.user_id):
            superuser.execute(insert, (user_id,))
    result = app.test_cli_runner().invoke(
        args=["members", "set-password", person.email, "--password", "a new password"]
    )
    assert result.exit_code == 0, result.output
    query = "SELECT end_reason FROM shared.sessions WHERE user_id = %s AND ended_at IS NOT NULL"
    with database.as_superuser() as superuser:
        assert {row[0] for row in superuser.execute(query, (person.user_id,)).fetchall()} == {"password"}
        assert superuser.execute(query, (other.user_id,)).fetchall() == []


def test_a_password_for_nobody_is_refused(app: Flask) -> None:
    result = app.test_cli_runner().invoke(args=["members", "set-password", new_email(), "--password", "a new password"])
    assert result.exit_code == 1
    assert "There is no user with the address" in result.output
    assert "Traceback" not in result.output


def test_former_members_are_forgotten_one_or_all(app: Flask, people: People, database: Database) -> None:
    admin, person = people.make(eur="admin"), people.make(eur="member")
    assert Api(app).send("DELETE", f"/api/admin/members/{person.user_id}", admin, "eur").status_code == 204
    run = app.test_cli_runner().invoke
    one = ("members", "forget-former", "--tenant", "eur", "--user", str(person.user_id))
    assert f"{person.user_id} is forgotten in eur" in run(args=one).output
    assert "is no former member of eur" in run(args=one).output
    kept = database.as_superuser().execute("SELECT FROM shared.former_members WHERE user_id = %s", (person.user_id,))
    assert kept.fetchall() == []
    log = database.as_tenant("eur").execute(
        "SELECT count(*) FROM audit_log WHERE action = 'member.forget' AND subject = %s", (str(person.user_id),)
    )
    assert log.fetchone() == (1,)
    assert "former members forgotten" in run(args=("members", "forget-former")).output
    assert run(args=one[:4]).exit_code == 2
    assert run(args=("members", "forget-former", "--tenant", "none", "--user", str(person.user_id))).exit_code == 1
