"""Invitations: the same answer for known and unknown addresses, accepted once, ended with their maker's right."""

import json
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.auth.devices import known_device
from app.auth.passwords import hash_password
from app.members.invitations import acceptance
from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import faults_of, problem_of
from tests.factories.api import Api
from tests.factories.application import running
from tests.factories.mail import Mailbox, token_in
from tests.factories.people import People, Person

PASSWORD = "correct horse battery staple"
INVITATIONS = "/api/admin/invitations"
OVER_TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])
OTHER = {"eur": "km", "km": "eur"}


@pytest.fixture
def admin(people: People) -> Person:
    return people.make(eur="admin", km="admin")


def new_address() -> str:
    return f"{uuid4().hex}@example.com"


def invite(api: Api, admin: Person, slug: str, email: str, **more: Any) -> TestResponse:
    return api.post(INVITATIONS, admin, slug, json={"email": email, "role": "member"} | more)


def accept(api: Api, token: str, **more: Any) -> TestResponse:
    return api.send("POST", "/api/auth/invitations/accept", json={"token": token} | more)


def members_of(api: Api, admin: Person, slug: str, email: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = api.get(f"/api/admin/members?q={email}", admin, slug).json["items"]
    return items


def invitations_of(api: Api, admin: Person, slug: str, email: str, query: str = "") -> list[dict[str, Any]]:
    items = api.get(f"{INVITATIONS}?limit=200{query}", admin, slug).json["items"]
    return [item for item in items if item["email"] == email]


@OVER_TENANTS
def test_an_unknown_address_is_invited_sets_a_password_and_is_a_member(
    api: Api, admin: Person, mailbox: Mailbox, slug: str
) -> None:
    email = new_address()
    made = invite(api, admin, slug, email.upper(), role="auditor", name="Ana")
    assert made.status_code == 201
    expected = {"email": email, "name": "Ana", "role": "auditor", "status": "pending", "acceptedAt": None}
    assert made.json | expected | {"inviterId": str(admin.user_id)} == made.json
    assert made.headers["Location"] == f"{INVITATIONS}/{made.json['id']}"
    assert api.get(made.headers["Location"], admin, slug).json == made.json
    problem_of(api.get(made.headers["Location"], admin, OTHER[slug]), 404, "invitation_not_found")
    assert members_of(api, admin, slug, email) == []
    (mail,) = mailbox.collect(email)
    assert mail["Subject"] == f"You are invited to {slug}"
    token = token_in(mail)
    assert faults_of(accept(api, token)) == [("password", "required")]
    accepted = accept(api, token, password=PASSWORD)
    shown = {"tenantId": slug, "email": email, "role": "auditor", "deviceToken": accepted.json["deviceToken"]}
    assert accepted.json == shown
    with api.client.application.app_context():
        assert known_device(email, [shown["deviceToken"]]), "it is of the new password"
    assert f"__Secure-device={shown['deviceToken']}" in str(accepted.headers.getlist("Set-Cookie"))
    (member,) = members_of(api, admin, slug, email)
    assert (member["name"], member["role"]) == ("Ana", "auditor")
    assert members_of(api, admin, OTHER[slug], email) == []
    answer = api.send("POST", "/api/auth/login", json={"email": email, "password": PASSWORD}).json
    assert [membership["tenantId"] for membership in answer["memberships"]] == [slug]
    problem_of(accept(api, token, password=PASSWORD), 404, "account_token_not_found")
    (listed,) = invitations_of(api, admin, slug, email, "&status=accepted")
    assert listed["status"] == "accepted"


@OVER_TENANTS
def test_an_admin_can_not_tell_a_known_address_from_an_unknown(
    api: Api, people: People, admin: Person, database: Database, slug: str
) -> None:
    known = people.make(password_hash=hash_password(PASSWORD), **{OTHER[slug]: "member"}).email
    disabled = people.make(**{OTHER[slug]: "member"})
    with database.as_superuser() as superuser:
        superuser.execute("UPDATE shared.users SET status = 'disabled' WHERE id = %s", (disabled.user_id,))
    answers = [invite(api, admin, slug, email) for email in (known, new_address(), disabled.email)]
    own = {"id", "email", "createdAt", "expiresAt"}
    shown = [{name: value for name, value in answer.json.items() if name not in own} for answer in answers]
    assert shown[0] == shown[1] == shown[2]
    assert [answer.status_code for answer in answers] == [201] * 3


def test_an_account_with_a_password_accepts_with_the_token_alone(
    api: Api, people: People, admin: Person, mailbox: Mailbox
) -> None:
    person = people.make(password_hash=hash_password(PASSWORD), km="member")
    invite(api, admin, "eur", person.email, role="admin")
    token = mailbox.token(person.email)
    problem_of(accept(api, token, password="another horse, another battery"), 409, "password_known")
    assert accept(api, token).status_code == 200
    assert api.get("/api/admin/members", person, "eur").status_code == 200
    body = {"email": person.email, "password": PASSWORD}
    assert api.send("POST", "/api/auth/login", json=body).status_code == 200


def test_an_account_that_exists_keeps_its_name_whatever_it_accepts_with(
    api: Api, people: People, admin: Person, mailbox: Mailbox
) -> None:
    """The tenant calls it as its admin has invited it, or by its own name."""
    person = people.make(password_hash=hash_password(PASSWORD), name="Ana of the Horses")
    for slug, named, expected in (("eur", {}, "Ana of the Horses"), ("km", {"name": "Ana"}, "Ana")):
        invite(api, admin, slug, person.email, **named)
        assert accept(api, mailbox.token(person.email), name="Eve").status_code == 200
        (member,) = members_of(api, admin, slug, person.email)
        assert member["name"] == expected
    assert api.get("/api/me", person).json["name"] == "Ana of the Horses"


def test_an_account_of_an_identity_provider_needs_no_password(
    database: Database, people: People, admin: Person
) -> None:
    person = people.make(km="member")
    with running(database, oidc_issuer="https://id.example", oidc_audience="wallet") as app:
        api, mailbox = Api(app), Mailbox(app)
        invite(api, admin, "eur", person.email)
        token = mailbox.token(person.email)
        problem_of(accept(api, token, password=PASSWORD), 409, "no_password")
        assert accept(api, token).status_code == 200


def test_a_disabled_user_accepts_nothing(
    api: Api, people: People, admin: Person, mailbox: Mailbox, database: Database
) -> None:
    person = people.make(km="member")
    invite(api, admin, "eur", person.email)
    token = mailbox.token(person.email)
    with database.as_superuser() as superuser:
        superuser.execute("UPDATE shared.users SET status = 'disabled' WHERE id = %s", (person.user_id,))
    problem_of(accept(api, token, password=PASSWORD), 404, "account_token_not_found")


def test_a_member_is_not_invited_again(api: Api, people: People, admin: Person) -> None:
    member = people.make(eur="member")
    problem_of(invite(api, admin, "eur", member.email), 409, "already_member")
    assert invite(api, admin, "km", member.email).status_code == 201


def test_who_became_a_member_meanwhile_keeps_the_role_of_then(api: Api, admin: Person, mailbox: Mailbox) -> None:
    email = new_address()
    invite(api, admin, "eur", email)
    api.post("/api/admin/members", admin, "eur", json={"email": email, "role": "admin"})
    assert accept(api, mailbox.token(email), password=PASSWORD).json["role"] == "admin"


def test_a_new_invitation_and_a_resent_one_replace_the_one_before(api: Api, admin: Person, mailbox: Mailbox) -> None:
    email = new_address()
    invite(api, admin, "eur", email)
    tokens = [mailbox.token(email)]
    second = invite(api, admin, "eur", email, role="admin").json
    tokens.append(mailbox.token(email))
    resent = api.post(f"{INVITATIONS}/{second['id']}/resend", admin, "eur")
    assert resent.json | {"expiresAt": ""} == second | {"expiresAt": ""}
    assert resent.json["expiresAt"] > second["expiresAt"]
    for token in tokens:
        problem_of(accept(api, token, password=PASSWORD), 404, "account_token_not_found")
    assert [item["status"] for item in invitations_of(api, admin, "eur", email)] == ["pending", "revoked"]
    assert accept(api, mailbox.token(email), password=PASSWORD).json["role"] == "admin"
    problem_of(api.post(f"{INVITATIONS}/{second['id']}/resend", admin, "eur"), 409, "invitation_over")


def test_a_revoked_invitation_is_good_no_longer(api: Api, admin: Person, mailbox: Mailbox) -> None:
    email = new_address()
    path = f"{INVITATIONS}/{invite(api, admin, 'eur', email).json['id']}"
    token = mailbox.token(email)
    assert [api.send("DELETE", path, admin, "eur").status_code for _ in range(2)] == [204, 204]
    problem_of(accept(api, token, password=PASSWORD), 404, "account_token_not_found")
    problem_of(api.post(f"{path}/resend", admin, "eur"), 409, "invitation_over")


def test_an_accepted_invitation_can_not_be_revoked(api: Api, admin: Person, mailbox: Mailbox) -> None:
    email = new_address()
    path = f"{INVITATIONS}/{invite(api, admin, 'eur', email).json['id']}"
    accept(api, mailbox.token(email), password=PASSWORD)
    problem_of(api.send("DELETE", path, admin, "eur"), 409, "invitation_over")


def test_invitations_that_have_been_over_for_long_are_deleted_and_the_others_stay(
    fresh_app: Flask, fresh_database: Database
) -> None:
    api, people, mailbox = Api(fresh_app), People(fresh_app), Mailbox(fresh_app)
    admin = people.make(eur="admin", km="admin")
    emails = {name: new_address() for name in ("accepted", "revoked", "expired", "pending", "fresh")}
    made = {name: invite(api, admin, "eur", email).json["id"] for name, email in emails.items()}
    assert accept(api, mailbox.token(emails["accepted"]), password=PASSWORD).status_code == 200
    api.send("DELETE", f"{INVITATIONS}/{made['revoked']}", admin, "eur")
    old, ahead = "- interval '31 days'", "+ interval '1 day'"
    with fresh_database.as_superuser() as superuser:
        change = "UPDATE shared.invitations SET {0} = now() {1} WHERE id = %s"
        for name, column, age in (
            ("accepted", "accepted_at", old),
            ("revoked", "revoked_at", old),
            ("expired", "expires_at", old),
            ("pending", "created_at", old),
            ("fresh", "expires_at", ahead),
        ):
            superuser.execute(change.format(column, age).encode(), (made[name],))
    done = fresh_app.test_cli_runner().invoke(args=["members", "prune-invitations"])
    assert (done.exit_code, done.output) == (0, "3 invitations deleted\n")
    left = {item["id"] for item in api.get(INVITATIONS, admin, "eur").json["items"]}
    assert left == {made["pending"], made["fresh"]}
    assert len(members_of(api, admin, "eur", emails["accepted"])) == 1


@OVER_TENANTS
def test_an_invitation_of_another_tenant_is_as_if_it_were_not(api: Api, admin: Person, slug: str) -> None:
    email = new_address()
    made = invite(api, admin, slug, email).json
    other = OTHER[slug]
    problem_of(api.send("DELETE", f"{INVITATIONS}/{made['id']}", admin, other), 404, "invitation_not_found")
    problem_of(api.post(f"{INVITATIONS}/{made['id']}/resend", admin, other), 404, "invitation_not_found")
    assert invitations_of(api, admin, other, email) == []
    assert [item["status"] for item in invitations_of(api, admin, slug, email)] == ["pending"]


@pytest.fixture
def leaver(people: People) -> Person:
    return people.make(eur="admin", km="admin")


@pytest.mark.parametrize(("method", "more"), [("DELETE", {}), ("PATCH", {"json": {"role": "auditor"}})])
def test_an_invitation_ends_with_its_makers_right(
    *, api: Api, admin: Person, leaver: Person, mailbox: Mailbox, method: str, more: dict[str, Any]
) -> None:
    """Or an admin could invite an address of their own and come back."""
    email = new_address()
    for slug in ("eur", "km"):
        invite(api, leaver, slug, email)
    in_eur, in_km = (token_in(mail) for mail in mailbox.collect(email))
    assert api.send(method, f"/api/admin/members/{leaver.user_id}", admin, "eur", **more).status_code < 300
    problem_of(accept(api, in_eur, password=PASSWORD), 404, "account_token_not_found")
    assert [item["status"] for item in invitations_of(api, admin, "eur", email)] == ["revoked"]
    assert accept(api, in_km, password=PASSWORD).status_code == 200, "the other tenant's"


@pytest.mark.parametrize("change", ["users SET status = 'disabled'", "memberships SET role = 'member'"])
def test_an_invitation_ends_also_if_nobody_revoked_it(
    api: Api, leaver: Person, mailbox: Mailbox, database: Database, change: str
) -> None:
    email = new_address()
    invite(api, leaver, "eur", email)
    token = mailbox.token(email)
    column = "id" if change.startswith("users") else "user_id"
    with database.as_superuser() as superuser:
        superuser.execute(f"UPDATE shared.{change} WHERE {column} = %s".encode(), (leaver.user_id,))
    problem_of(accept(api, token, password=PASSWORD), 404, "account_token_not_found")


def test_an_address_in_an_entry_of_release_0_2_0_is_not_shown(api: Api, people: People, database: Database) -> None:
    admin = people.make(eur="admin")
    entry: dict[str, Any] = {
        "actor_kind": "user",
        "actor_id": str(admin.user_id),
        "action": "member.invite",
        "subject": str(uuid4()),
    }
    entry["after"] = {"email": "forgotten@example.com", "role": "member"}
    database.as_tenant("eur").execute("SELECT audit_note_v2(%s::jsonb)", (json.dumps(entry),))
    (shown,) = api.get(f"/api/admin/audit-log?actorId={admin.user_id}", admin, "eur").json["items"]
    assert shown["after"] == {"role": "member"}


def test_all_of_it_is_in_the_audit_log(api: Api, people: People, admin: Person, mailbox: Mailbox) -> None:
    email, known = new_address(), people.make(password_hash="!", km="member")
    first = invite(api, admin, "eur", email).json["id"]
    api.post(f"{INVITATIONS}/{first}/resend", admin, "eur")
    api.send("DELETE", f"{INVITATIONS}/{first}", admin, "eur")
    invite(api, admin, "eur", known.email)
    accept(api, mailbox.token(known.email))
    entries = api.get(f"/api/admin/audit-log?actorId={admin.user_id}", admin, "eur").json["items"]
    told = [entry["action"] for entry in reversed(entries)]
    assert told == ["member.invite", "invitation.resend", "invitation.revoke", "member.invite"]
    assert [entry["subject"] for entry in entries[1:]] == [first] * 3
    assert not any(address in str(entries) for address in (email, known.email)), "the log is kept for ever"
    (accepted,) = api.get(f"/api/admin/audit-log?actorId={known.user_id}", admin, "eur").json["items"]
    assert (accepted["action"], accepted["subject"]) == ("invitation.accept", str(known.user_id))
    assert accepted["after"] == {"role": "member", "inviterId": str(admin.user_id)}


def test_mails_are_limited_by_address_and_by_tenant_and_no_tenant_feels_another(
    database: Database, admin: Person
) -> None:
    email = new_address()
    with running(database, mail_rate_limit="2/hour", invitation_rate_limit="4/hour") as app:
        api = Api(app)
        assert [invite(api, admin, "eur", email).status_code for _ in range(3)] == [201, 201, 429]
        assert invite(api, admin, "km", email).status_code == 201
        assert [invite(api, admin, "eur", new_address()).status_code for _ in range(2)] == [201, 429]


def test_a_suspended_tenants_invitation_waits(
    app: Flask, api: Api, admin: Person, mailbox: Mailbox, database: Database
) -> None:
    email = new_address()
    invite(api, admin, "eur", email)
    token = mailbox.token(email)
    with database.as_superuser() as superuser:
        superuser.execute("UPDATE shared.tenants SET status = 'suspended' WHERE slug = 'eur'")
    try:
        problem_of(accept(api, token, password=PASSWORD), 404, "account_token_not_found")
    finally:
        with database.as_superuser() as superuser:
            superuser.execute("UPDATE shared.tenants SET status = 'active' WHERE slug = 'eur'")
    assert accept(api, token, password=PASSWORD).status_code == 200


def test_a_password_that_was_set_meanwhile_stays(
    *,
    api: Api,
    people: People,
    admin: Person,
    mailbox: Mailbox,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the password of the invitation is hashed, the user sets another one with a reset."""
    person = people.make(km="member")
    invite(api, admin, "eur", person.email)

    def hashed(_: str) -> str:
        with database.as_superuser() as superuser:
            change = "UPDATE shared.users SET password_hash = 'of the reset' WHERE id = %s"
            superuser.execute(change, (person.user_id,))
        return "of the invitation"

    monkeypatch.setattr(acceptance, "hash_password", hashed)
    assert accept(api, mailbox.token(person.email), password=PASSWORD).status_code == 200
    with database.as_superuser() as superuser:
        query = "SELECT password_hash FROM shared.users WHERE id = %s"
        assert superuser.execute(query, (person.user_id,)).fetchall() == [("of the reset",)]
