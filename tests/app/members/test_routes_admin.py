"""An admin manages the members of one tenant: at once, in the audit log, without learning about other tenants."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.auth.actors import Actor, ActorKind
from app.auth.errors import AdminRequired
from app.db import db
from app.members import service
from app.users.models import Role
from tenant_schemas.flask import tenant_context
from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import faults_of, problem_of
from tests.factories.api import Api
from tests.factories.people import People, Person

MEMBERS = "/api/admin/members"
OVER_TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])
OTHER = {"eur": "km", "km": "eur"}


@pytest.fixture
def admin(people: People) -> Person:
    return people.make(eur="admin", km="admin")


def new_email() -> str:
    return f"{uuid4().hex}@example.com"


def add(api: Api, admin: Person, slug: str, email: str, role: str = "member", **more: Any) -> TestResponse:
    return api.post(MEMBERS, admin, slug, json={"email": email, "role": role} | more)


def roles_of(database: Database, user_id: Any) -> dict[str, str]:
    query = (
        "SELECT t.slug, m.role FROM shared.memberships m JOIN shared.tenants t ON t.id = tenant_id WHERE user_id = %s"
    )
    with database.as_superuser() as superuser:
        return dict(superuser.execute(query, (user_id,)).fetchall())


def user_of(database: Database, email: str) -> tuple[Any, ...]:
    """Id, name, password and operator of the user."""
    query = "SELECT id, name, password_hash, is_operator FROM shared.users WHERE email = %s"
    with database.as_superuser() as superuser:
        row = superuser.execute(query, (email,)).fetchone()
    assert row
    return tuple(row)


def log_of(api: Api, admin: Person, slug: str, subject: UUID) -> list[tuple[Any, ...]]:
    """The audit entries about this user, oldest first."""
    items = api.get(f"/api/admin/audit-log?actorId={admin.user_id}&limit=200", admin, slug).json["items"]
    told = [item for item in reversed(items) if item["subject"] == str(subject)]
    return [(item["action"], item["before"], item["after"]) for item in told]


# --- letting in ----------------------------------------------------------------------------------------------------


@OVER_TENANTS
@pytest.mark.parametrize("role", ["member", "admin", "auditor"])
def test_a_new_address_becomes_a_member_without_a_password(
    api: Api, admin: Person, database: Database, slug: str, role: str
) -> None:
    email = new_email()
    answer = add(api, admin, slug, email.upper(), role, name="Ana")
    user_id, name, password_hash, is_operator = user_of(database, email)
    assert (answer.status_code, answer.json) == (201, {"id": str(user_id), "role": role})
    assert (name, password_hash, is_operator) == (email, None, False), "Ana is what this tenant calls them"
    assert roles_of(database, user_id) == {slug: role}
    login = api.send("POST", "/api/auth/login", json={"email": email, "password": "anything"})
    problem_of(login, 401, "bad_credentials")


@OVER_TENANTS
def test_somebody_of_another_tenant_is_let_in_and_the_answer_does_not_tell(
    api: Api, people: People, admin: Person, database: Database, slug: str
) -> None:
    """Nor does the directory. Name and roles elsewhere do not change."""
    known = people.make(name="Their Own Name", password_hash="untouched", **{OTHER[slug]: "member"})
    answers = [add(api, admin, slug, email, name="Given") for email in (known.email, new_email())]
    assert [(answer.status_code, set(answer.json)) for answer in answers] == [(201, {"id", "role"})] * 2
    for answer in answers:
        shown = api.get(MEMBERS, admin, slug, query_string={"q": "Given", "limit": "200"}).json["items"]
        assert answer.json["id"] in {member["id"] for member in shown}
    hidden = api.get(MEMBERS, admin, slug, query_string={"q": "Their Own Name", "limit": "200"}).json["items"]
    assert answers[0].json["id"] not in {member["id"] for member in hidden}
    assert user_of(database, known.email)[1:3] == ("Their Own Name", "untouched")
    assert roles_of(database, known.user_id) == {slug: "member", OTHER[slug]: "member"}
    assert api.get("/api/wallet", known, slug).status_code == 200


@OVER_TENANTS
def test_adding_a_member_again_changes_their_role(
    api: Api, people: People, admin: Person, database: Database, slug: str
) -> None:
    person = people.make(eur="member", km="member")
    for role in ("auditor", "auditor"):
        answer = add(api, admin, slug, person.email, role)
        assert (answer.status_code, answer.json) == (200, {"id": str(person.user_id), "role": role})
    assert roles_of(database, person.user_id) == {slug: "auditor", OTHER[slug]: "member"}
    assert log_of(api, admin, slug, person.user_id) == [("member.change", {"role": "member"}, {"role": "auditor"})]


@pytest.mark.parametrize(
    "email", ["ana", "@", "ana@", "@example.com", "ana @example.com", "a@b@c", "ana@exam\tple.com"]
)
def test_what_is_no_address_makes_no_user(api: Api, admin: Person, email: str) -> None:
    assert faults_of(add(api, admin, "eur", email)) == [("email", "not_an_address")]


@pytest.mark.parametrize("role", ["operator", "service", "owner", "Admin"])
@OVER_TENANTS
def test_no_admin_makes_operators_or_services(api: Api, people: People, admin: Person, slug: str, role: str) -> None:
    person = people.make(eur="member", km="member")
    assert faults_of(add(api, admin, slug, new_email(), role)) == [("role", "unknown_choice")]
    changed = api.patch(f"{MEMBERS}/{person.user_id}", admin, slug, json={"role": role})
    assert faults_of(changed) == [("role", "unknown_choice")]


def test_a_tenant_whose_log_is_held_up_keeps_no_other_from_adding_the_same_person(
    app: Flask, people: People, database: Database
) -> None:
    admin, email = people.make(eur="admin", km="admin"), new_email()
    with database.as_superuser() as superuser, ThreadPoolExecutor(1) as thread:
        with superuser.transaction():
            superuser.execute("SELECT FROM eur_schema.audit_chain FOR UPDATE")
            held_up = thread.submit(add, Api(app), admin, "eur", email)
            while not superuser.execute("SELECT FROM shared.users WHERE email = %s", (email,)).fetchall():
                pass
            assert add(Api(app), admin, "km", email).status_code == 201
        assert held_up.result().status_code == 201


def test_two_admins_let_the_same_new_person_in_at_once(app: Flask, people: People, database: Database) -> None:
    admins = [people.make(eur="admin", km="admin") for _ in range(2)]
    for _ in range(5):
        email = new_email()
        tries = [(admin, slug) for admin in admins for slug in ("eur", "km")]
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda told, email=email: add(Api(app), *told, email), tries))
        assert sorted(answer.status_code for answer in answers) == [200, 200, 201, 201]
        assert len({answer.json["id"] for answer in answers}) == 1
        assert roles_of(database, user_of(database, email)[0]) == {"eur": "member", "km": "member"}


# --- changing and removing ----------------------------------------------------------------------------------------


@OVER_TENANTS
def test_a_changed_role_counts_at_the_next_request_and_in_this_tenant_only(
    api: Api, people: People, admin: Person, database: Database, slug: str
) -> None:
    person = people.make(eur="member", km="member")
    for role, status in (("auditor", 200), ("member", 403), ("admin", 200)):
        changed = api.patch(f"{MEMBERS}/{person.user_id}", admin, slug, json={"role": role})
        assert (changed.status_code, changed.json) == (200, {"id": str(person.user_id), "role": role})
        assert api.get("/api/admin/wallets", person, slug).status_code == status
        problem_of(api.get("/api/admin/wallets", person, OTHER[slug]), 403, "admin_required")
    before = ["member", "auditor", "member"]
    after = ["auditor", "member", "admin"]
    assert log_of(api, admin, slug, person.user_id) == [
        ("member.change", {"role": old}, {"role": new}) for old, new in zip(before, after, strict=True)
    ]
    assert log_of(api, admin, OTHER[slug], person.user_id) == []


@OVER_TENANTS
def test_a_removed_member_is_out_at_once_and_finds_the_wallet_again(
    api: Api, people: People, admin: Person, slug: str
) -> None:
    person = people.make(eur="member", km="member")
    wallet = people.wallet(person, slug, balance_minor=500)
    removed = api.send("DELETE", f"{MEMBERS}/{person.user_id}", admin, slug)
    assert (removed.status_code, removed.data) == (204, b"")
    problem_of(api.get("/api/wallet", person, slug), 404, "tenant_not_found")
    assert api.get("/api/wallet", person, OTHER[slug]).status_code == 200
    assert api.get(f"/api/admin/wallets/{wallet}", admin, slug).json["balance"] == "5.00"
    assert add(api, admin, slug, person.email).status_code == 201
    assert api.get("/api/wallet", person, slug).json["id"] == str(wallet)
    assert log_of(api, admin, slug, person.user_id) == [
        ("member.remove", {"role": "member"}, None),
        ("member.add", None, {"role": "member"}),
    ]


@OVER_TENANTS
def test_who_is_no_member_here_is_not_found_wherever_else_they_are(
    api: Api, people: People, admin: Person, database: Database, slug: str
) -> None:
    """An admin of both tenants reaches only the members of the named one."""
    foreign = people.make(**{OTHER[slug]: "member"})
    for user_id in (foreign.user_id, uuid4()):
        path = f"{MEMBERS}/{user_id}"
        changed = api.patch(path, admin, slug, json={"role": "admin"})
        removed = api.send("DELETE", path, admin, slug)
        details = {problem_of(answer, 404, "member_not_found")["detail"] for answer in (changed, removed)}
        assert details == {"There is no such member in this tenant."}
    assert roles_of(database, foreign.user_id) == {OTHER[slug]: "member"}


@OVER_TENANTS
def test_admins_neither_change_nor_remove_themselves(api: Api, admin: Person, database: Database, slug: str) -> None:
    own = f"{MEMBERS}/{admin.user_id}"
    problem_of(api.patch(own, admin, slug, json={"role": "member"}), 409, "own_membership")
    problem_of(api.send("DELETE", own, admin, slug), 409, "own_membership")
    problem_of(add(api, admin, slug, admin.email.upper()), 409, "own_membership")
    assert roles_of(database, admin.user_id) == {"eur": "admin", "km": "admin"}


def test_of_two_admins_who_remove_each_other_at_once_one_stays(app: Flask, people: People, database: Database) -> None:
    def remove(admin: Person, member: Person) -> TestResponse:
        return Api(app).send("DELETE", f"{MEMBERS}/{member.user_id}", admin, "km")

    for _ in range(10):
        one, two = (people.make(km="admin") for _ in range(2))
        with ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(remove, (one, two), (two, one)))
        assert sorted(answer.status_code for answer in answers)[0] == 204
        left = [person for person in (one, two) if roles_of(database, person.user_id)]
        assert len(left) == 1


def test_an_admin_who_is_none_any_more_removes_nobody(app: Flask, people: People) -> None:
    """The gate had admitted their request; another admin's was faster."""
    former, other = people.make(km="member"), people.make(km="admin")
    with app.app_context(), tenant_context("km"):
        actor = Actor(ActorKind.USER, former.user_id)
        for attempt in (
            lambda: service.remove_member(other.user_id, actor=actor),
            lambda: service.change_role(other.user_id, Role.MEMBER, actor=actor),
            lambda: service.put_member(new_email(), None, Role.ADMIN, actor=actor),
        ):
            with pytest.raises(AdminRequired):
                attempt()
            db.session.rollback()


@pytest.mark.parametrize("role", ["member", "auditor"])
@OVER_TENANTS
def test_only_an_admin_says_who_belongs(*, api: Api, people: People, database: Database, slug: str, role: str) -> None:
    person, target = people.make(eur=role, km=role), people.make(eur="member", km="member")
    path = f"{MEMBERS}/{target.user_id}"
    problem_of(add(api, person, slug, new_email()), 403, "admin_required")
    problem_of(api.patch(path, person, slug, json={"role": "admin"}), 403, "admin_required")
    problem_of(api.patch(f"{MEMBERS}/{person.user_id}", person, slug, json={"role": "admin"}), 403, "admin_required")
    problem_of(api.send("DELETE", path, person, slug), 403, "admin_required")
    assert roles_of(database, target.user_id) == {"eur": "member", "km": "member"}


# --- the list ------------------------------------------------------------------------------------------------------


@OVER_TENANTS
def test_the_list_has_this_tenants_members_by_address_page_by_page(
    api: Api, people: People, admin: Person, slug: str
) -> None:
    tag = uuid4().hex
    here = [people.make(name=f"Ana {tag}", **{slug: role}) for role in ("member", "auditor", "admin", "member")]
    people.make(name=f"Foreign {tag}", **{OTHER[slug]: "member"})
    found: list[Any] = []
    cursor = ""
    while not found or cursor:
        page = api.get(f"{MEMBERS}?q=ANA {tag}&limit=3{cursor}", admin, slug).json
        found += page["items"]
        cursor = page["nextCursor"] and f"&cursor={page['nextCursor']}"
    assert [item["email"] for item in found] == sorted(person.email for person in here)
    by_id = {item["id"]: item for item in found}
    assert by_id[str(here[1].user_id)] == {
        "id": str(here[1].user_id),
        "email": here[1].email,
        "name": f"Ana {tag}",
        "role": "auditor",
    }
    assert api.get(f"{MEMBERS}?q=Foreign {tag}", admin, slug).json["items"] == []
    admins = api.get(f"{MEMBERS}?q={tag}&role=admin", admin, slug).json["items"]
    assert [item["id"] for item in admins] == [str(here[2].user_id)]


@OVER_TENANTS
def test_who_reads_the_tenant_reads_the_list_and_a_member_does_not(api: Api, people: People, slug: str) -> None:
    auditor, member = people.make(eur="auditor", km="auditor"), people.make(eur="member", km="member")
    assert api.get(f"{MEMBERS}?q={member.email}", auditor, slug).json["items"][0]["role"] == "member"
    problem_of(api.get(MEMBERS, member, slug), 403, "admin_required")


@pytest.mark.parametrize("q", ["%", "_", "\\", "' OR true --"])
def test_a_search_takes_no_wildcards(api: Api, admin: Person, q: str) -> None:
    answer = api.get(MEMBERS, admin, "eur", query_string={"q": q + uuid4().hex})
    assert answer.json == {"items": [], "nextCursor": None}
    assert api.get(MEMBERS, admin, "eur", query_string={"q": "%@%"}).json["items"] == []
